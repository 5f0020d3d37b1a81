import {
  AdoptionActs,
  passOnClaim,
  passOnClaims,
  settleAdoptions,
} from '../../../src/control/acts/adoptions.ts';
import { HomeRights } from '../../../src/control/acts/home-rights.ts';
import { MachineActs } from '../../../src/control/acts/machine-acts.ts';
import type { AuditedAct } from '../../../src/control/base/audit.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { Inventory } from '../../../src/control/inventory/inventory.ts';
import { deviceNameOf } from '../../../src/control/machines/machine-disks.ts';
import { Machines } from '../../../src/control/machines/machines.ts';
import { speakingHome } from '../../../src/control/machines/speaking-home.ts';
import { DivergedBranches } from '../../../src/control/replicas/diverged-branches.ts';
import { endRemovals, Generations } from '../../../src/control/replicas/generations.ts';
import { ReplicaFences } from '../../../src/control/replicas/replica-fences.ts';
import { type BranchView, Failovers } from '../../../src/failover/index.ts';
import { hypervisorFailure } from '../../../src/hypervisor/errors.ts';
import type { Clock } from '../../../src/lib/clock.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import type { PeerClient } from '../../../src/peer/index.ts';
import { type Tenure, Zones } from '../../../src/recovery-point/index.ts';
import { type Replica, Replicas, tenureOfReplica } from '../../../src/replica/index.ts';
import {
  OfferedRights,
  PeerTarget,
  type ProtectedMachine,
  ReplicationReceiver,
} from '../../../src/replication/index.ts';
import { type FakeHost, FakeHypervisor } from '../../support/fake-hypervisor.ts';
import type { FakeMachine } from '../../support/fake-machine.ts';
import { judgedLog, startGuest } from '../hosted-site.ts';
import { DATA, imagesOn, MACHINE_ID } from '../leases/made-sites.ts';
import type { SimCalls } from '../leases/sim-calls.ts';
import type { SimHost } from '../leases/sim-host.ts';
import { isSigned, simSigner } from '../signing.ts';
import { SimFiles } from '../sim-files.ts';
import type { SimRandom } from '../sim-random.ts';
import type { SimProcess } from '../turns.ts';

/** Two sites, by the last letter of their ids: either may be the home of the machine. */
export const HOMES = { A: `${'0'.repeat(25)}a`, B: `${'0'.repeat(25)}b` } as const;
export type HomeName = keyof typeof HOMES;
export const HOME_NAMES = ['A', 'B'] as const;

/** Ways to replace what a site works with, from outside of it: planted bugs. */
export interface HomeWrappers {
  readonly files?: (files: FileSystem, site: HomeName) => FileSystem;
  readonly failovers?: (failovers: Failovers, site: HomeName) => void;
}

export interface HomeSiteOptions {
  readonly name: HomeName;
  readonly host: SimHost;
  readonly calls: SimCalls;
  readonly random: SimRandom;
  readonly wrap: HomeWrappers;
  /** Something failed, for the world to judge. */
  readonly onTrouble: (where: string, error: unknown) => void;
  /** For whoever reads the trace. */
  readonly onLog: (said: string) => void;
  readonly onNote: (act: AuditedAct) => void;
  /** The process could not open its site, or not all of it: a person starts it again. */
  readonly onUnfit: () => void;
  /** A guest has begun to run, in this directory. */
  readonly onGuest: (site: HomeName, guest: FakeMachine, runDirectory: string) => void;
  readonly onPublished: (site: HomeName, replica: Replica, pointId: string) => Promise<void>;
}

/** What a process of a site has opened. */
export interface OpenHome {
  readonly process: SimProcess;
  readonly clock: Clock;
  readonly files: FileSystem;
  readonly client: (siteId: string) => Pick<PeerClient, 'call' | 'upload'>;
  readonly replicas: Replicas;
  readonly machines: Machines;
  readonly failovers: Failovers;
  readonly diverged: DivergedBranches;
  readonly generations: Generations;
  readonly inventory: Inventory;
  readonly fences: ReplicaFences;
  readonly adoptions: AdoptionActs;
  readonly acts: MachineActs;
  readonly opening: AsyncDisposableStack;
  readonly alerts: ReadonlyMap<string, Failure>;
}

/** A guest that runs on a host, and outlives every process of its site. */
export interface HomeGuest {
  readonly guest: FakeMachine;
  readonly runDirectory: string;
}

/** A site on its host: a process of the real classes, again and again, above guests that outlive it. */
export class HomeSite {
  readonly name: HomeName;
  readonly siteId: string;
  readonly host: SimHost;
  readonly #o: HomeSiteOptions;
  readonly #machines: FakeHost['machines'] = new Map();
  process: SimProcess | undefined;
  /** Of the process that runs now, once it is open. */
  open: OpenHome | undefined;

  constructor(o: HomeSiteOptions) {
    this.#o = o;
    this.name = o.name;
    this.siteId = HOMES[o.name];
    this.host = o.host;
  }

  /** The guests that run here; those that have not begun, or stand still, are none. */
  get guests(): readonly HomeGuest[] {
    return [...this.#machines]
      .filter(([, guest]) => guest.isAlive && !guest.isPaused)
      .map(([path, guest]) => ({ guest, runDirectory: path.replace(/\/qmp$/, '') }));
  }

  /** Who speaks for the machine here, as far as the process knows: the machine, or else its replica. */
  get home(): ProtectedMachine | undefined {
    const { open } = this;
    if (!open) return undefined;
    return speakingHome(open.machines.get(MACHINE_ID)?.machine, open.replicas.get(MACHINE_ID), this.siteId);
  }

  get replica(): Replica | undefined {
    return this.open?.replicas.get(MACHINE_ID);
  }

  /** Where the site stands, as far as its process knows. */
  get tenure(): Tenure | undefined {
    const { home, replica } = this;
    return home ? home.right.tenure : replica && tenureOfReplica(replica.record, this.siteId);
  }

  /** It is up, could read all there is, and has nothing of the machine. */
  get hasNothing(): boolean {
    if (!this.open || this.tenure) return false;
    const { machines, replicas } = this.open;
    return machines.broken.length + replicas.broken.length === 0;
  }

  boot(): void {
    if (!this.host.isOn || this.process?.isAlive) return;
    const process = this.host.process(this.name);
    this.process = process;
    const opening = new AsyncDisposableStack();
    this.#open(process, opening).then(
      (open) => {
        this.open = open;
        if (open.replicas.broken.length + open.machines.broken.length > 0) this.#o.onUnfit();
      },
      (error: unknown) => {
        this.#o.onTrouble(`${this.name} open`, error);
        if (process.isAlive) this.#o.onUnfit();
      },
    );
  }

  /** As SIGKILL does it. */
  kill(): void {
    const { process } = this;
    if (!process) return;
    process.kill();
    this.host.locks.releaseAll(process);
    this.gone();
  }

  /** Its process has ended, by whatever. */
  gone(): void {
    this.#o.calls.serve(this.siteId, undefined);
    this.process = undefined;
    this.open = undefined;
  }

  /** As `openWorks` does it, in the same order. */
  async #open(process: SimProcess, opening: AsyncDisposableStack): Promise<OpenHome> {
    const { host, name, siteId } = this;
    const { calls, random, wrap, onNote } = this.#o;
    const { clock } = host.clocksOf(process);
    const plain = new SimFiles(host.disk, process, host.faults);
    const files = wrap.files?.(plain, name) ?? plain;
    const images = imagesOn(files, host.locks, process);
    const log = judgedLog(name, this.#o);
    const { alerts, sink } = this.#alerts();
    const clearing = { ...sink, clearMachine: () => undefined };
    const audit = {
      note: onNote,
      acting: <T>(_act: AuditedAct, work: () => Promise<T>) => work(),
    };
    const events = new EventHub();
    const zones = new Zones();
    const client = calls.clientOf(siteId, process, clock);
    const hypervisor = this.#hypervisor(process, files);
    const tools = { files, images, clock, random, log, zones, siteId, signer: simSigner, hypervisor };
    await endRemovals(tools, DATA, (directory, error) =>
      log.error('removal.not-ended', { directory, error }),
    );
    const replicas = await Replicas.open({ ...tools, isSignedBySource: isSigned }, DATA, 'left');
    const failovers = new Failovers({
      ...tools,
      ...{ networks: NO_NETWORKS, cpuGroups: NO_CPU_GROUPS, programs: { run: nobodyRuns } },
      testRules: () => ({ mostRunning: 8, freeFloorBytes: 0 }),
      freeBytes: async () => 2 ** 40,
      machinesHere: () => [],
      runDirectory: `${DATA}/run`,
    });
    wrap.failovers?.(failovers, name);
    opening.defer(() => failovers.close());
    await settleAdoptions({ files, log, alerts: sink }, DATA, replicas.list());
    await failovers.recover(replicas.list());
    const machines = await Machines.open({
      ...tools,
      ...{ dataDirectory: DATA, networks: NO_NETWORKS, beforeStart: async () => undefined },
      loop: {
        ...{ clock, random, log, files, zones, events, audit, alerts: sink },
        spaceAt: async () => ({ freeBytes: 2 ** 40, totalBytes: 2 ** 41 }),
        identities: { look: async () => undefined, forget: () => undefined },
        target: (to) => new PeerTarget({ siteId: to, client: client(to), clock }),
      },
    });
    opening.defer(() => machines.close());
    const passing = { siteId, machines, log, alerts: sink };
    await passOnClaims(passing, replicas.list());
    const listed = { list: listing(process, hypervisor) };
    const fences = new ReplicaFences({
      ...{ siteId, clock, replicas, alerts: sink, audit, log },
      failovers: { ...listed, stop: failovers.stop.bind(failovers) },
      passOn: (replica) => passOnClaim(passing, replica),
    });
    opening.defer(() => fences.close());
    fences.begin();
    const generations = new Generations({
      ...{ files, dataDirectory: DATA, machines, replicas, olderCopies: { list: () => [] } },
    });
    const diverged = await DivergedBranches.open({
      ...{ files, images, siteId, dataDirectory: DATA, machines, replicas, generations, failovers },
      groups: { of: () => undefined },
      alerts: clearing,
      triggerTokens: { remove: async () => undefined },
    });
    const home = new HomeRights({
      ...{ siteId, machines, replicas, audit, alerts: sink, files, images, log, diverged },
      failovers: { ...listed, cleanup: failovers.cleanup.bind(failovers) },
      isForwarded: () => false,
      onTurnedBack: (replica) => fences.look(replica),
    });
    opening.defer(() => home.close());
    const rights = new OfferedRights({
      ...{ siteId, replicas, home, hindrance: async () => undefined },
      onChanged: (replica) => fences.look(replica),
    });
    const receiver = new ReplicationReceiver({
      ...{ home, replicas, log, wallMs: () => clock.wallMs(), checkRoom: async () => undefined },
      onPublished: (replica, { pointId }) => void this.#o.onPublished(name, replica, pointId),
      acceptOrigin: nobodyRuns,
      preview: nobodyRuns,
      olderDisks: (from, _machine, header) => home.formerDisks(from, header),
    });
    const inventory = new Inventory({
      ...{ siteId, machines, replicas, clock, zones, leases: { standing: () => undefined } },
      origins: { nameOf: () => undefined },
      ...({ links: { view: () => undefined }, forwards: { reports: () => [] } } as unknown as Unseen),
    });
    const adoptions = new AdoptionActs({
      ...{ identity: { siteId }, machines, diverged, fences, clock, random, log, alerts: sink, audit },
      failovers: { ...listed, adopt: failovers.adopt.bind(failovers) },
      inventory,
      reports: { ofAdoptions: async () => undefined },
    });
    const acts = new MachineActs({
      ...{ machines, inventory, audit, fences, diverged, alerts: clearing },
      groups: { of: () => undefined, checkRetention: async () => undefined },
      links: { views: () => [] },
      tokens: { remove: async () => undefined },
    });
    const served = { ...receiver.calls, ...rights.calls };
    calls.serve(siteId, { process, calls: served, upload: receiver.upload });
    return {
      ...{ process, clock, files, client, replicas, machines, failovers, diverged, fences, adoptions },
      ...{ acts, generations, inventory, opening, alerts },
    };
  }

  #alerts() {
    const alerts = new Map<string, Failure>();
    const sink = {
      raise: (key: string, _severity: string, failure: Failure) => {
        alerts.set(key, failure);
        this.#o.onLog(`${this.name}: alert ${key} ${failure.message}`);
        if (failure.code === 'INTERNAL') this.#o.onTrouble(`${this.name} ${key}`, failure.cause);
      },
      clear: (key: string) => void alerts.delete(key),
    };
    return { alerts, sink };
  }

  #hypervisor(process: SimProcess, files: FileSystem): FakeHypervisor {
    const host: FakeHost = {
      machines: this.#machines,
      start: ({ qmpPath }, disks, { paused }) => this.#startMachine(qmpPath, disks, paused),
    };
    const deviceName = (diskId: string) => deviceNameOf(diskId, 'virtio-blk');
    const hypervisor = new FakeHypervisor({ host, actor: process, files, deviceName });
    hypervisor.offer = async () => {
      throw hypervisorFailure('MACHINE_NOT_RUNNING', 'nobody says what it offers');
    };
    return hypervisor;
  }

  async #startMachine(
    path: string,
    disks: Parameters<FakeHost['start']>[1],
    paused: boolean,
  ): Promise<FakeMachine> {
    const guest = await startGuest(this.host, disks, paused);
    this.#machines.set(path, guest);
    this.#o.onGuest(this.name, guest, path.replace(/\/qmp$/, ''));
    return guest;
  }
}

/** Of the inventory, what only views are made from. */
type Unseen = Pick<ConstructorParameters<typeof Inventory>[0], 'links' | 'forwards'>;

/** As `Failovers.list`, but for the room that a branch takes: nobody asks for that here. */
function listing(process: SimProcess, hypervisor: FakeHypervisor): Failovers['list'] {
  return async (replica) => {
    await process.turn('branches', () => undefined);
    const views: BranchView[] = [];
    for (const { branchId, purpose } of replica.branches) {
      const running = (await hypervisor.processesOf(`${DATA}/run/${branchId}`)).length > 0;
      views.push({ branchId, purpose, running } as BranchView);
    }
    return views;
  };
}

const NO_NETWORKS = {
  isolate: async () => ({ report: { kind: 'unplugged', reason: 'no NIC' }, attachments: {} }) as const,
  connect: async () => ({ report: { kind: 'connected', unplugged: [] }, attachments: {} }) as const,
  remove: async () => undefined,
};

const NO_CPU_GROUPS = {
  ...{ check: async () => undefined, make: async () => undefined },
  ...{ enter: async () => undefined, remove: async () => undefined },
};

async function nobodyRuns(): Promise<never> {
  throw new Error('nobody asks for that here');
}
