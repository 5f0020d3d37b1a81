import assert from 'node:assert/strict';
import type { MachineSockets } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { readSmallFile } from '../../src/lib/files.ts';
import { silentLog } from '../../src/lib/log.ts';
import { newId, systemRandom } from '../../src/lib/random.ts';
import { createEmptyLayer } from '../../src/qcow2/index.ts';
import { Zones } from '../../src/recovery-point/index.ts';
import {
  type MachineRecord,
  ProtectedLayout,
  ProtectedMachine,
  type ProtectedTools,
} from '../../src/replication/index.ts';
import { simSigner } from '../simulation/signing.ts';
import { chooseCutMode, SimDisk } from '../simulation/sim-disk.ts';
import { SimFiles } from '../simulation/sim-files.ts';
import { SimRandom } from '../simulation/sim-random.ts';
import { type Actor, AT_ONCE } from './actor.ts';
import { FakeGuards, FakeHypervisor, type MachineCommand, type Mishap } from './fake-hypervisor.ts';
import { FakeImages, ImageLocks, openFiles } from './fake-images.ts';
import { type FakeDisk, FakeMachine } from './fake-machine.ts';

const DISK_BYTES = 128 * 1024;
const PART = 4096;

/** A process that dies when it is about to do its so manieth thing; what it is told to do afterwards never happens. */
export class Mortal implements Actor {
  readonly died = Promise.withResolvers<void>();
  /** What it may still do before its end. */
  left: number;
  isDead = false;
  #said = '';

  constructor(left = Number.POSITIVE_INFINITY) {
    this.left = left;
  }

  /** What it was about to do. */
  get diedBefore(): string {
    return this.#said;
  }

  async turn<T>(label: string, effect: () => T): Promise<T> {
    if (!this.isDead && this.left-- <= 0) {
      this.isDead = true;
      this.#said = label;
      this.died.resolve();
    }
    return this.isDead ? new Promise(() => undefined) : effect();
  }
}

/** A machine of two disks that runs on two layers each, none of them acknowledged, and a guest that knows what it wrote. */
export interface TwoDiskBox {
  readonly files: SimFiles;
  readonly layout: ProtectedLayout;
  /** All files of the host. */
  names(): string[];
  text(path: string): Promise<string>;
  /** Its owner starts the machine on his own files, as if there were no layers. */
  runOnOrigins(): Promise<void>;
  fake(): FakeMachine;
  /** A process of the site that has opened the machine, with its own chance to die and to be refused. */
  open(actor?: Actor, mishap?: (command: MachineCommand) => Mishap | undefined): Promise<ProtectedMachine>;
  /** A process of the site ends the protection, and dies after so many acts, if it has not done it by then. */
  unprotectUntil(acts: number): Promise<{ readonly site: Mortal; readonly machine: ProtectedMachine }>;
  /** The same of anything else that it does with the machine. */
  until(
    acts: number,
    work: (machine: ProtectedMachine) => Promise<void>,
  ): Promise<{ readonly site: Mortal; readonly machine: ProtectedMachine }>;
  /** The process of the site is dead: its guard, if it has one, does its part, until it dies itself. */
  parentDied(site: Actor, guard: Mortal): Promise<void>;
  /** The guest writes on both disks and says which parts it flushed. */
  write(): Promise<void>;
  /** The host of the machine loses its power, with it everything that runs. */
  losePower(seed: number): void;
  /** The owner's files read as what the guest has written, and nothing of ours is left beside them. */
  assertGivenBack(when: string): Promise<void>;
}

export async function twoDiskBox(): Promise<TwoDiskBox> {
  const disk = new SimDisk();
  const files = new SimFiles(disk);
  const locks = new ImageLocks();
  for (const directory of ['/data', '/owner', '/run']) await files.makeDirectory(directory);
  const machineId = newId(systemClock, systemRandom);
  const sockets: MachineSockets = { qmpPath: '/run/box/qmp' };
  const memory = new Map<string, Buffer>();
  const disks: MachineRecord['disks'] = [];
  for (const diskId of ['one', 'two']) {
    const path = `/owner/${diskId}.qcow2`;
    await createEmptyLayer(files, path, { sizeBytes: DISK_BYTES, backing: null }, { sync: true });
    const chain = [{ path, format: 'qcow2' as const }];
    disks.push({ diskId, deviceName: `drive-${diskId}`, chain, sizeBytes: DISK_BYTES });
    memory.set(diskId, Buffer.alloc(DISK_BYTES));
  }
  const host = {
    machines: new Map<string, FakeMachine>(),
    guards: new FakeGuards(),

    start: async ({ qmpPath }: MachineSockets, chains: readonly FakeDisk[]) => {
      const copies = chains.map((chain) => ({ ...chain }));
      const machine = await FakeMachine.start({ files, locks, process: AT_ONCE, disks: copies });
      host.machines.set(qmpPath, machine);
      return machine;
    },
  };
  await host.start(sockets, disks);
  const toolsOf = (
    actor: Actor,
    mishap?: (command: MachineCommand) => Mishap | undefined,
  ): ProtectedTools => {
    const own = new SimFiles(disk, actor);
    return {
      ...{ clock: systemClock, random: systemRandom, log: silentLog, zones: new Zones(), signer: simSigner },
      ...{ files: own, images: new FakeImages({ files: own, locks, owner: actor }) },
      siteId: newId(systemClock, systemRandom),
      hypervisor: new FakeHypervisor({ host, actor, files: own, ...(mishap ? { mishap } : {}) }),
    };
  };
  const layout = new ProtectedLayout('/data', machineId);
  const fake = () => host.machines.get(sockets.qmpPath)!;
  let writes = 0;
  const box: TwoDiskBox = {
    ...{ files, layout, fake },
    names: () => [...disk.files.keys()],
    text: async (path) => String(await readSmallFile(files, path, 1_000_000)),
    runOnOrigins: async () => void (await host.start(sockets, disks)),
    open: (actor = AT_ONCE, mishap) => ProtectedMachine.open(toolsOf(actor, mishap), layout),
    unprotectUntil: (acts) => box.until(acts, (machine) => machine.unprotect()),
    async until(acts, work) {
      const site = new Mortal();
      const machine = await box.open(site);
      await machine.attach();
      site.left = acts;
      await Promise.race([work(machine), site.died.promise]);
      locks.releaseAll(site);
      return { site, machine };
    },
    async parentDied(site, guard) {
      await Promise.race([
        host.guards.parentDied(site, guard, new SimFiles(disk, guard)),
        guard.died.promise,
      ]);
    },
    async write() {
      for (const { diskId } of disks) {
        // One part that every write hits, one that only this one does.
        for (const part of [0, 1 + (writes % (DISK_BYTES / PART - 1))]) {
          const data = Buffer.alloc(PART, 1 + (writes % 255));
          await fake().guestWrite(`drive-${diskId}`, part * PART, data);
          data.copy(memory.get(diskId)!, part * PART);
        }
        writes += 1;
      }
      await fake().guestFlush();
    },
    losePower(seed) {
      const random = new SimRandom(seed, 1);
      fake().kill();
      disk.crash(random, chooseCutMode(random));
    },
    async assertGivenBack(when) {
      for (const { diskId, chain } of disks) {
        const { reader } = await openFiles(files, chain);
        const found = await reader.read(0, DISK_BYTES);
        await reader[Symbol.asyncDispose]();
        const expected = memory.get(diskId)!;
        for (let at = 0; at < DISK_BYTES; at += PART) {
          const part = `${when}: part ${at / PART} of the owner's ${diskId}`;
          assert.equal(found[at], expected[at], part);
        }
      }
      const left = [...disk.files.keys()].filter((path) => path.startsWith(layout.disks));
      assert.deepEqual(left, [], when);
    },
  };
  const machine = await ProtectedMachine.create(toolsOf(AT_ONCE), layout, {
    ...{
      machineId,
      name: 'box',
      kind: 'attached',
      createdAtMs: 0,
      epoch: 1,
      sockets,
      disks,
      protection: null,
    },
    configuration: {
      ...{
        name: 'box',
        uuid: '00000000-0000-4000-8000-000000000001',
        architecture: 'x86_64',
        chipset: 'q35',
      },
      ...{ firmware: 'bios', cpus: 1, memoryBytes: 2 ** 26, nics: [], guestAgent: false },
      disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes, bus: 'virtio-blk' as const })),
    },
  });
  await machine.protect({
    ...{ schedules: [], freezeLimitMs: 1000, compression: false },
    targetSiteId: newId(systemClock, systemRandom),
    retention: { types: { crash: 4 } },
  });
  for (let cuts = 0; cuts < 2; cuts++) {
    await box.write();
    await machine.cut('crash');
  }
  await box.write();
  await machine.release();
  return box;
}
