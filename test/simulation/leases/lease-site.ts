import type { AuditedAct } from '../../../src/control/base/audit.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import type { LeaseVotes } from '../../../src/control/leases/lease-votes.ts';
import { type LeaseWorks, leaseWorks } from '../../../src/control/leases/lease-works.ts';
import { ReplicationLoop } from '../../../src/control/machines/replication-loop.ts';
import { ReplicaFences } from '../../../src/control/replicas/replica-fences.ts';
import type { seizeRight } from '../../../src/failover/right.ts';
import type { LeaseGuards } from '../../../src/hypervisor/index.ts';
import type { Clock } from '../../../src/lib/clock.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import type { CallHandler, PeerClient } from '../../../src/peer/index.ts';
import { type Claim, Zones } from '../../../src/recovery-point/index.ts';
import { type ReplicaDescription, Replicas } from '../../../src/replica/index.ts';
import {
  NOTHING_AT_HOME,
  OfferedRights,
  ProtectedMachine,
  ReplicationReceiver,
  type ReplicationTarget,
  rightsAt,
} from '../../../src/replication/index.ts';
import { type FakeHost, FakeHypervisor } from '../../support/fake-hypervisor.ts';
import type { FakeMachine } from '../../support/fake-machine.ts';
import { judgedLog, startGuest } from '../hosted-site.ts';
import { isSigned, simSigner } from '../signing.ts';
import { SimFiles } from '../sim-files.ts';
import type { SimRandom } from '../sim-random.ts';
import type { SimProcess } from '../turns.ts';
import { BranchGuests, SimBranches } from './branch-guests.ts';
import {
  DATA,
  imagesOn,
  MACHINE_ID,
  machineLayout,
  RUN_DIRECTORY,
  SITE_IDS,
  type SiteName,
} from './made-sites.ts';
import type { SimCalls } from './sim-calls.ts';
import { GuardsOfHost } from './sim-guards.ts';
import type { SimHost } from './sim-host.ts';

/** Ways to replace what a site works with, from outside of it: planted bugs. */
export interface LeaseWrappers {
  readonly files?: (files: FileSystem, site: SiteName) => FileSystem;
  readonly guards?: (guards: LeaseGuards) => LeaseGuards;
  readonly bootClock?: (clock: Clock, site: SiteName) => Clock;
  readonly calls?: (
    calls: Readonly<Record<string, CallHandler>>,
    site: SiteName,
  ) => Readonly<Record<string, CallHandler>>;
  readonly votes?: (votes: LeaseVotes, site: SiteName) => void;
  readonly home?: (machine: ProtectedMachine) => void;
  readonly votedRight?: (right: typeof seizeRight) => typeof seizeRight;
  readonly guardEndsWithSite?: true;
}

export interface LeaseSiteOptions {
  readonly name: SiteName;
  readonly host: SimHost;
  readonly calls: SimCalls;
  readonly random: SimRandom;
  readonly wrap: LeaseWrappers;
  /** Something failed, for the world to judge. */
  readonly onTrouble: (where: string, error: unknown) => void;
  /** For whoever reads the trace. */
  readonly onLog: (said: string) => void;
  readonly onNote: (act: AuditedAct) => void;
  /** The process could not open its site, or does not know what it has promised: a person starts it again. */
  readonly onUnfit: () => void;
}

/** What a process of a site has opened. */
export interface OpenSite extends LeaseWorks {
  readonly process: SimProcess;
  readonly clock: Clock;
  readonly files: FileSystem;
  readonly client: (siteId: string) => Pick<PeerClient, 'call'>;
  readonly replicas: Replicas;
  readonly machine: ProtectedMachine | undefined;
  readonly loop: ReplicationLoop | undefined;
  readonly fences: ReplicaFences;
  readonly branches: SimBranches;
  readonly opening: AsyncDisposableStack;
  readonly alerts: ReadonlyMap<string, Failure>;
}

/** A site on its host: a process of the real classes, again and again, above guests and guards that outlive it. */
export class LeaseSite {
  readonly name: SiteName;
  readonly siteId: string;
  readonly host: SimHost;
  readonly guards: GuardsOfHost;
  readonly guests: BranchGuests;
  readonly #o: LeaseSiteOptions;
  readonly #machines: FakeHost['machines'] = new Map();
  /** By which the machine that is at home here was started. */
  homeClaim: Claim | undefined;
  process: SimProcess | undefined;
  /** Of the process that runs now, once it is open. */
  open: OpenSite | undefined;

  constructor(o: LeaseSiteOptions) {
    this.#o = o;
    this.name = o.name;
    this.siteId = SITE_IDS[o.name];
    this.host = o.host;
    this.guests = new BranchGuests(o.host);
    this.guards = new GuardsOfHost({
      ...{ host: o.host, random: o.random },
      guestOf: () => this.guest,
    });
  }

  /** The process of the machine that is at home here, if there is one. */
  get guest(): FakeMachine | undefined {
    const guest = this.#machines.get(`${RUN_DIRECTORY}/qmp`);
    return guest?.isAlive ? guest : undefined;
  }

  /** Nobody would stop the guest just now, were the site killed. */
  get isUnguarded(): boolean {
    const isLeased = this.open?.machine?.record.lease !== undefined || this.host.marks.has(RUN_DIRECTORY);
    return this.guest !== undefined && isLeased && !this.guards.get(RUN_DIRECTORY);
  }

  boot(): void {
    if (!this.host.isOn || this.process?.isAlive) return;
    const process = this.host.process(this.name);
    this.process = process;
    const opening = new AsyncDisposableStack();
    this.#open(process, opening).then(
      (open) => {
        this.open = open;
        if (open.alerts.has(`vote:${MACHINE_ID}`)) this.#o.onUnfit();
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
    if (this.#o.wrap.guardEndsWithSite) this.guards.get(RUN_DIRECTORY)?.process.kill();
    this.host.locks.releaseAll(process);
    this.gone();
  }

  /** Its process has ended, by whatever. */
  gone(): void {
    this.#o.calls.serve(this.siteId, undefined);
    this.process = undefined;
    this.open = undefined;
  }

  async #open(process: SimProcess, opening: AsyncDisposableStack): Promise<OpenSite> {
    const { host, name, siteId } = this;
    const { calls, random, wrap, onNote } = this.#o;
    const { clock, bootClock: real } = host.clocksOf(process);
    const bootClock = wrap.bootClock?.(real, name) ?? real;
    const plain = new SimFiles(host.disk, process, host.faults);
    const files = wrap.files?.(plain, name) ?? plain;
    const images = imagesOn(files, host.locks, process);
    const log = judgedLog(name, this.#o);
    const alerts = new Map<string, Failure>();
    const sink = {
      raise: (key: string, _severity: string, failure: Failure) => {
        alerts.set(key, failure);
        if (failure.code === 'INTERNAL') this.#o.onTrouble(`${name} ${key}`, failure.cause);
      },
      clear: (key: string) => void alerts.delete(key),
    };
    const audit = { note: onNote };
    const events = new EventHub();
    const zones = new Zones();
    const client = calls.clientOf(siteId, process, clock);
    const replicas = await Replicas.open(
      { files, images, clock, log, zones, isSignedBySource: isSigned },
      DATA,
    );
    for (const { error } of replicas.broken) throw error;
    const hypervisor = this.#hypervisor(process, files);
    const tools = { files, images, clock, random, log, zones, siteId, signer: simSigner, hypervisor };
    const machine = name === 'P' ? await ProtectedMachine.open(tools, machineLayout()) : undefined;
    if (machine) wrap.home?.(machine);
    const loop =
      machine &&
      new ReplicationLoop(machine, {
        ...{ clock, random, log, files, zones, events, audit, alerts: sink },
        spaceAt: async () => ({ freeBytes: 2 ** 40, totalBytes: 2 ** 41 }),
        identities: { look: async () => undefined, forget: () => undefined },
        target: (to) => targetAt(to, client(to)),
      });
    loop?.start();
    if (loop) opening.defer(() => loop.stop());
    const home = machine && { machine, loop };
    const works = await leaseWorks(
      {
        ...{ dataDirectory: DATA, siteId, files, clock, bootClock, log, audit, events, replicas },
        alerts: sink,
        leaseGuards: wrap.guards?.(this.guards.seenBy(process)) ?? this.guards.seenBy(process),
        links: { client },
        machines: {
          get: (machineId) => (machineId === MACHINE_ID ? home : undefined),
          list: () => (home ? [home] : []),
          broken: [],
        },
        hear: async (machineId, claim) =>
          void (await (machine ? machine.right.hear(claim) : rights.hear(machineId, claim))),
      },
      opening,
    );
    wrap.votes?.(works.votes, name);
    const branches = new SimBranches({ guests: this.guests, files: plain, process, random, siteId });
    const fences = new ReplicaFences({
      ...{ siteId, clock, replicas, alerts: sink, audit, log, failovers: branches.asFailovers },
      passOn: async () => undefined,
    });
    opening.defer(() => fences.close());
    fences.begin();
    const rights = new OfferedRights({
      ...{ siteId, replicas, home: NOTHING_AT_HOME, hindrance: async () => undefined },
      onChanged: (replica) => fences.look(replica),
    });
    const receiver = new ReplicationReceiver({
      ...{ home: NOTHING_AT_HOME, replicas, log, wallMs: () => clock.wallMs() },
      checkRoom: async () => undefined,
      onPublished: () => undefined,
      acceptOrigin: nobodyCopies,
      preview: nobodyCopies,
      olderDisks: () => undefined,
    });
    works.votes.begin();
    const served = { ...receiver.calls, ...rights.calls, ...works.votes.calls };
    calls.serve(siteId, { process, calls: wrap.calls?.(served, name) ?? served });
    const opened = {
      process,
      clock,
      files,
      client,
      replicas,
      machine,
      loop,
      fences,
      branches,
      opening,
      alerts,
    };
    return { ...opened, ...works };
  }

  #hypervisor(process: SimProcess, files: FileSystem): FakeHypervisor {
    const host: FakeHost = {
      machines: this.#machines,
      start: ({ qmpPath }, disks, { paused }) => this.#startMachine(qmpPath, disks, paused),
    };
    return new FakeHypervisor({ host, actor: process, files });
  }

  async #startMachine(
    path: string,
    disks: Parameters<FakeHost['start']>[1],
    paused: boolean,
  ): Promise<FakeMachine> {
    const guest = await startGuest(this.host, disks, paused);
    this.#machines.set(path, guest);
    this.homeClaim = this.open?.machine?.right.tenure.claim;
    return guest;
  }
}

/** Everything that the machine has written was copied when it was made: what is still said is who holds it. */
function targetAt(siteId: string, client: Pick<PeerClient, 'call'>): ReplicationTarget {
  return {
    siteId,
    rights: rightsAt(client),
    get seeds(): never {
      throw new Error('nothing comes by courier');
    },
    describe: async (machineId, signal) => {
      const answer = await client.call('replica.describe', { machineId }, signal ? { signal } : {});
      return answer as unknown as ReplicaDescription | null;
    },
    offer: nobodyCopies,
    upload: nobodyCopies,
  };
}

async function nobodyCopies(): Promise<never> {
  throw new Error('there is nothing to copy');
}
