import { dirname } from 'node:path';
import type { DiskImages, ImageFile, MachineConfiguration } from '../../src/hypervisor/index.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { createEmptyLayer } from '../../src/qcow2/index.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import type { Replica } from '../../src/replica/index.ts';
import {
  type Cession,
  type MachineRecord,
  ProtectedLayout,
  ProtectedMachine,
  type ProtectedTools,
  type ReplicationTarget,
} from '../../src/replication/index.ts';
import { AT_ONCE } from '../support/actor.ts';
import {
  FakeGuards,
  type FakeHost,
  FakeHypervisor,
  type MachineCommand,
  type Mishap,
} from '../support/fake-hypervisor.ts';
import { FakeImages, ImageLocks } from '../support/fake-images.ts';
import { FakeMachine } from '../support/fake-machine.ts';
import { DiskFaults } from './faults.ts';
import type { GuestDisk, GuestMemory } from './guest.ts';
import { simSigner } from './signing.ts';
import { chooseCutMode, SimDisk } from './sim-disk.ts';
import { SimFiles } from './sim-files.ts';
import type { SimRandom } from './sim-random.ts';
import type { Swarm } from './swarm.ts';
import { SimProcess, type Turns } from './turns.ts';

export const MACHINE_ID = `${'0'.repeat(25)}m`;
export const PROTECTED_SITE = `${'0'.repeat(25)}p`;
export const RECOVERY_SITES = [`${'0'.repeat(25)}r`, `${'0'.repeat(25)}s`] as const;
const SOCKETS = { qmpPath: '/run/machine/qmp' };
/** Disks stay small, so that every point can be read again and again. */
const GUEST_BYTES_MAX = 1024 * 1024;
const DISKS_MAX = 4;

/** Ways to replace what a site process works with, from outside of it: planted bugs. */
export interface Wrappers {
  files?: (files: FileSystem, disk: SimDisk) => FileSystem;
  images?: (images: DiskImages, disk: SimDisk) => DiskImages;
  target?: (target: ReplicationTarget) => ReplicationTarget;
  /** Replicas of one machine, as they are given to the receiver. */
  replica?: (replica: Replica) => void;
}

export interface ProtectedSiteOptions {
  readonly turns: Turns;
  readonly random: SimRandom;
  /** Chance of its own for disks that grow: a life in which none does is what it would be without. */
  readonly growth: SimRandom;
  /** As `growth`, for disks that come. */
  readonly arrivals: SimRandom;
  /** As `growth`, for offers of the machine to other sites. */
  readonly handovers: SimRandom;
  readonly swarm: Swarm;
  readonly guest: GuestMemory;
  readonly wrap: Wrappers;
  /** One for each recovery site. */
  readonly targetsFor: (process: SimProcess) => readonly ReplicationTarget[];
  /** A task of a process failed in a way that no task should. */
  readonly onTrouble: (where: string, error: unknown) => void;
  readonly onCut: (cutId: string, diskIds: readonly string[]) => void;
  readonly onCeded: (cession: Cession) => void;
}

/** The protected host: a machine with its guest, and the site process that protects it. */
export class ProtectedSite {
  readonly disk = new SimDisk();
  readonly faults = new DiskFaults();
  readonly locks = new ImageLocks();
  readonly #o: ProtectedSiteOptions;
  readonly #host: FakeHost;
  readonly #guards = new FakeGuards();
  readonly #layout = new ProtectedLayout('/data', MACHINE_ID);
  process: SimProcess | undefined;
  /** Of the process that runs now, once it has opened its machine. */
  machine: ProtectedMachine | undefined;
  fake: FakeMachine | undefined;
  #guestProcess: SimProcess | undefined;
  #opened: SimFiles | undefined;
  mishaps = 0;
  cessions = 0;
  /** The machine is kept off to be ceded there, for so many looks. */
  #toCede: { readonly siteId: string; looksLeft: number } | undefined;
  #arrived = 0;
  /** The guest writes, copies are made and the machine is stopped and started; else everything only comes to rest. */
  isBusy = true;

  constructor(o: ProtectedSiteOptions) {
    this.#o = o;
    this.#host = {
      machines: new Map(),
      guards: this.#guards,
      start: (_sockets, disks) => this.#startMachine(disks),
    };
  }

  /** The machine as its owner made it, and its protection. Nothing goes wrong meanwhile. */
  async setUp(): Promise<void> {
    const files = new SimFiles(this.disk);
    for (const directory of ['/data', '/owner', '/run']) await files.makeDirectory(directory);
    await files.syncDirectory('/');
    const { swarm } = this.#o;
    const disks = [];
    for (const disk of swarm.disks) disks.push(await this.#makeDisk(disk));
    const process = new SimProcess(this.#o.turns, 'set-up');
    const tools = this.#tools(process, files);
    const machine = await ProtectedMachine.create(tools, this.#layout, machineRecord(disks, process));
    const [targetSiteId, ...others] = RECOVERY_SITES.slice(0, swarm.targets);
    const gets = { retention: swarm.retention, compression: false };
    await machine.protect({ targetSiteId: targetSiteId!, schedules: [], freezeLimitMs: 1000, ...gets });
    for (const siteId of others) await machine.addTarget({ siteId, ...gets });
  }

  /** The file of a disk as its owner has it. */
  ownFile(diskId: string): ImageFile {
    const format = this.#o.swarm.originFormat;
    return { path: `/owner/${diskId}.${format}`, format };
  }

  /** A disk as its owner makes it, durable. */
  async #makeDisk({ diskId, sizeBytes }: GuestDisk): Promise<MachineRecord['disks'][number]> {
    const files = new SimFiles(this.disk);
    const { path, format } = this.ownFile(diskId);
    if (format === 'raw') {
      const file = await files.open(path, 'create');
      await file.truncate(sizeBytes);
      await file.sync();
      await file.close();
      await files.syncDirectory(dirname(path));
    } else {
      await createEmptyLayer(files, path, { sizeBytes, backing: null }, { sync: true });
    }
    return { diskId, deviceName: `drive-${diskId}`, chain: [{ path, format }], sizeBytes };
  }

  /** The owner of a machine that is off puts a disk in, and the site is told. */
  async #putDiskIn(machine: ProtectedMachine): Promise<void> {
    const { arrivals } = this.#o;
    const diskId = `late${++this.#arrived}`;
    const sizeBytes = arrivals.pick([135_680, 196_608]);
    const disk = await this.#makeDisk({ diskId, sizeBytes });
    await machine.addDisk({ disk, configuration: { diskId, sizeBytes, bus: 'virtio-blk' } });
  }

  #tools(process: SimProcess, files: FileSystem): ProtectedTools {
    const { random, wrap } = this.#o;
    const wrapped = wrap.files?.(files, this.disk) ?? files;
    const dropCache = (path: string) => this.disk.file(path)?.evict();
    const images = new FakeImages({ files, locks: this.locks, owner: process, dropCache });
    return {
      files: wrapped,
      images: wrap.images?.(images, this.disk) ?? images,
      clock: process.clock,
      random,
      log: silentLog,
      hypervisor: new FakeHypervisor({
        host: this.#host,
        actor: process,
        files: wrapped,
        mishap: (command) => this.#mishap(command),
      }),
      signer: simSigner,
      zones: new Zones(),
      siteId: PROTECTED_SITE,
    };
  }

  #mishap(_command: MachineCommand): Mishap | undefined {
    const { random, swarm } = this.#o;
    if (!(this.isBusy || this.isToEnd) || !random.chance(swarm.mishaps)) return undefined;
    this.mishaps += 1;
    return random.pick(['refused', 'answer-lost']);
  }

  /** Starts the site process. */
  boot(): void {
    const process = new SimProcess(this.#o.turns, 'P');
    const files = new SimFiles(this.disk, process, this.faults);
    this.process = process;
    this.#opened = files;
    const run = (name: string, work: () => Promise<void>) => {
      work().catch((error: unknown) => this.#o.onTrouble(`P ${name}`, error));
    };
    run('main', async () => {
      const tools = this.#tools(process, files);
      const machine = await this.#patiently(process, 'open', () =>
        ProtectedMachine.open(tools, this.#layout),
      );
      this.machine = machine;
      await this.#patiently(process, 'attach', () => machine.attach());
      run('cutter', () => this.#cutNowAndThen(process, machine));
      const targets = this.#o.targetsFor(process);
      for (const target of targets) run('sender', () => this.#send(process, machine, target));
      run('keeper', () => this.#keepRunning(process, machine, targets));
    });
  }

  /** Until it works; what may fail and be tried again is for the world to judge. */
  async #patiently<T>(process: SimProcess, name: string, work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        this.#o.onTrouble(`P ${name}`, error);
        await process.sleep(this.#o.random.between(5, 30));
      }
    }
  }

  /** The protection is to be ended. */
  isToEnd = false;
  /** The guest goes on writing although everything else comes to rest. */
  isGuestBusy = false;

  async #cutNowAndThen(process: SimProcess, machine: ProtectedMachine): Promise<never> {
    const { random, swarm } = this.#o;
    for (;;) {
      await process.sleep(random.between(1, 2 * swarm.cutEveryMs));
      if (this.isToEnd || this.#toCede || (!this.isBusy && !this.needsLastCut)) continue;
      try {
        await machine.cut(random.chance(0.3) ? 'app' : 'crash');
        if (!this.isBusy) this.needsLastCut = false;
      } catch (error) {
        this.#o.onTrouble('P cut', error);
      }
    }
  }

  /** One more copy is wanted although the site comes to rest. */
  needsLastCut = false;
  /** The machine is stopped when everything comes to rest. */
  restsStopped = false;

  async #send(process: SimProcess, machine: ProtectedMachine, target: ReplicationTarget): Promise<never> {
    const wrapped = this.#o.wrap.target?.(target) ?? target;
    for (;;) {
      try {
        const outcome = this.isToEnd ? { kind: 'nothing' } : await machine.replicate(wrapped);
        if (outcome.kind !== 'nothing') continue;
      } catch (error) {
        this.#o.onTrouble('P replicate', error);
      }
      await process.sleep(this.#o.random.between(2, 30));
    }
  }

  /** Looks at the machine as the real site does, starts it, and sometimes stops it. */
  async #keepRunning(
    process: SimProcess,
    machine: ProtectedMachine,
    targets: readonly ReplicationTarget[],
  ): Promise<never> {
    const { random, arrivals, swarm } = this.#o;
    for (;;) {
      await process.sleep(random.between(10, 150));
      try {
        if (this.isToEnd && machine.record.protection) await machine.unprotect();
        const presence = random.chance(0.5) ? await machine.attach() : await machine.look();
        const comes = presence.state === 'stopped' && this.isBusy && arrivals.chance(swarm.arrivals);
        const present = machine.record.disks.filter(({ leaving }) => !leaving);
        if (comes && present.length > 1 && arrivals.chance(0.4))
          await machine.removeDisk(arrivals.pick(present).diskId);
        else if (comes && present.length < DISKS_MAX) await this.#putDiskIn(machine);
        const isCeding = await this.#handOver(machine, targets, presence.state === 'stopped');
        const isToStop = isCeding || (this.isBusy ? random.chance(0.05) : this.restsStopped);
        if (presence.state === 'running' && isToStop) await machine.running?.quit();
        else if (presence.state === 'stopped' && !isToStop && random.chance(0.5)) await machine.start();
      } catch (error) {
        this.#o.onTrouble('P keep', error);
      }
    }
  }

  /** Offers a machine that is off to a site, sooner or later, and takes it back. Whether it is to stay off. */
  async #handOver(
    machine: ProtectedMachine,
    targets: readonly ReplicationTarget[],
    isOff: boolean,
  ): Promise<boolean> {
    const { handovers, swarm } = this.#o;
    if (swarm.cessions === 0) return false;
    if (machine.right.tenure.state === 'cedes') {
      this.#toCede = undefined;
      if (this.isBusy && handovers.chance(0.5)) return true;
      const { withdrawal, siteId } = machine.right.withdrawal();
      const rights = targets.find((target) => target.siteId === siteId)!.rights!;
      const { claim } = await rights.withdraw(MACHINE_ID, withdrawal);
      await machine.right.hear(claim);
      return false;
    }
    if (!this.isBusy) this.#toCede = undefined;
    else if (!this.#toCede && handovers.chance(swarm.cessions))
      this.#toCede = { siteId: handovers.pick(targets).siteId, looksLeft: 20 };
    if (!this.#toCede) return false;
    if (!isOff) return true;
    const { siteId } = this.#toCede;
    this.#toCede.looksLeft -= 1;
    if (this.#toCede.looksLeft < 0) this.#toCede = undefined;
    try {
      if (await machine.hasUncutChanges()) await machine.cut('crash');
      const cession = await machine.right.cede(siteId);
      this.cessions += 1;
      this.#o.onCeded(cession);
    } catch (error) {
      this.#o.onTrouble('P cede', error);
    }
    return true;
  }

  async #startMachine(disks: Parameters<FakeHost['start']>[1]): Promise<FakeMachine> {
    const process = new SimProcess(this.#o.turns, 'Q');
    const fake = await FakeMachine.start({
      files: new SimFiles(this.disk),
      locks: this.locks,
      process,
      disks,
      observer: {
        onCut: (overlays) =>
          this.#o.onCut(
            cutIdOf(overlays[0]!.overlay.path),
            overlays.map(({ deviceName }) => diskOf(deviceName)),
          ),
      },
    });
    const found = fake.disks.map(({ deviceName, sizeBytes }) => ({ diskId: diskOf(deviceName), sizeBytes }));
    this.#o.guest.learn(found);
    fake.onGone(() => process.kill());
    this.#host.machines.set(SOCKETS.qmpPath, fake);
    this.fake = fake;
    this.#guestProcess = process;
    this.#runGuest(process, fake).catch((error: unknown) => this.#o.onTrouble('guest', error));
    return fake;
  }

  async #growDisk(fake: FakeMachine): Promise<void> {
    const { guest, growth } = this.#o;
    const diskId = growth.pick(disksOf(fake));
    const sizeBytes = guest.content(diskId).length + growth.pick([512, 4096, 40_960, 131_072]);
    if (sizeBytes > GUEST_BYTES_MAX) return;
    await fake.grow(`drive-${diskId}`, sizeBytes);
    guest.grow(diskId, sizeBytes);
  }

  async #runGuest(process: SimProcess, fake: FakeMachine): Promise<never> {
    const { random, growth, swarm, guest } = this.#o;
    for (;;) {
      await process.sleep(random.between(1, 2 * swarm.writeEveryMs));
      await process.turn('guest', () => undefined);
      if (!(this.isBusy || this.isGuestBusy) || fake.isPaused) continue;
      if (this.isBusy && growth.chance(swarm.growth)) await this.#growDisk(fake);
      const diskId = random.pick(disksOf(fake));
      // A disk that has grown in the moment of a cut is smaller for the guest until its tip has followed.
      const sizeBytes = Math.min(guest.content(diskId).length, fake.sizeOf(`drive-${diskId}`));
      const kind = random.below(10);
      if (kind < 6) {
        const sectors = random.pick([1, 3, 8, 16, 40]);
        const offset = random.below(sizeBytes / 512 - sectors + 1) * 512;
        const data = guest.freshData(sectors * 512);
        guest.write(diskId, offset, data);
        await fake.guestWrite(`drive-${diskId}`, offset, data);
      } else if (kind < 8) {
        const parts = random.pick([1, 4, 20, 33]);
        const offset = random.below(Math.floor(sizeBytes / 4096) - parts + 1) * 4096;
        guest.write(diskId, offset, Buffer.alloc(parts * 4096));
        await fake.guestZero(`drive-${diskId}`, offset, parts * 4096);
      } else {
        await fake.guestFlush();
        guest.flush(disksOf(fake));
      }
    }
  }

  /** What a power cut now would leave, opened again by a new process with no machine running. */
  async probe(
    random: SimRandom,
    look: (disk: SimDisk, machine: ProtectedMachine) => Promise<void>,
  ): Promise<void> {
    const disk = this.disk.copy();
    disk.crash(random, chooseCutMode(random));
    const process = new SimProcess(this.#o.turns, 'probe');
    const files = new SimFiles(disk);
    const tools: ProtectedTools = {
      ...this.#tools(process, files),
      files,
      images: new FakeImages({ files, locks: new ImageLocks() }),
      hypervisor: new FakeHypervisor({ host: { ...this.#host, machines: new Map() }, actor: AT_ONCE }),
    };
    const machine = await ProtectedMachine.open(tools, this.#layout);
    await machine.attach();
    await look(disk, machine);
  }

  /** The guard that it may have just now does its part, or is killed with it. */
  killProcess(guard: 'lives' | 'killed' = 'killed'): void {
    const { process } = this;
    process?.kill();
    if (process) this.locks.releaseAll(process);
    const files = new SimFiles(this.disk);
    const wrapped = this.#o.wrap.files?.(files, this.disk) ?? files;
    if (process && guard === 'lives') void this.#guards.parentDied(process, AT_ONCE, wrapped);
    this.process = undefined;
    this.machine = undefined;
    this.#opened = undefined;
  }

  /** The machine runs on its owner's files, all of it or in part. */
  get hasChangedOver(): boolean {
    return (
      this.fake?.isAlive === true &&
      this.fake.disks.some(({ chain }) => chain.at(-1)!.path.startsWith('/owner'))
    );
  }

  killMachine(): void {
    this.fake?.kill();
    this.#guestProcess?.kill();
  }

  /** Handles that the site process has open. */
  get openHandles(): string[] {
    return [...(this.#opened?.opened ?? [])].map(({ path }) => path);
  }
}

function disksOf(fake: FakeMachine): string[] {
  return fake.disks.map(({ deviceName }) => diskOf(deviceName));
}

export function diskOf(deviceName: string): string {
  return deviceName.slice('drive-'.length);
}

/** A cut's layers are named after it. */
function cutIdOf(path: string): string {
  return path.split('/').at(-1)!.replace('.qcow2', '');
}

function machineRecord(disks: MachineRecord['disks'], process: SimProcess): MachineRecord {
  const configuration: MachineConfiguration = {
    name: 'simulated',
    uuid: '00000000-0000-4000-8000-000000000001',
    architecture: 'x86_64',
    chipset: 'q35',
    firmware: 'bios',
    cpus: 1,
    memoryBytes: 64 * 1024 * 1024,
    disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes, bus: 'virtio-blk' })),
    nics: [],
    guestAgent: true,
  };
  return {
    machineId: MACHINE_ID,
    name: 'simulated',
    kind: 'managed',
    createdAtMs: process.clock.wallMs(),
    epoch: 1,
    configuration,
    sockets: SOCKETS,
    disks,
    protection: null,
  };
}
