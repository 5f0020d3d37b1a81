import { controlFailure } from '../../src/control/errors.ts';
import { VoteRecords } from '../../src/control/leases/lease-records.ts';
import { LeaseVotes } from '../../src/control/leases/lease-votes.ts';
import { Leases, type LeasesTools } from '../../src/control/leases/leases.ts';
import type { LeaseGuard, LeaseGuards } from '../../src/hypervisor/index.ts';
import type { Json } from '../../src/lib/canonical-json.ts';
import type { Failure } from '../../src/lib/errors.ts';
import { KeptRecord } from '../../src/lib/kept-record.ts';
import { silentLog } from '../../src/lib/log.ts';
import { Mutex } from '../../src/lib/mutex.ts';
import { loadRecord, storeRecord } from '../../src/lib/records.ts';
import { peerFailure } from '../../src/peer/errors.ts';
import type { Peer } from '../../src/peer/index.ts';
import { afterHearing, type Claim, type LeaseTerms, type Tenure } from '../../src/recovery-point/index.ts';
import { replicationFailure } from '../../src/replication/errors.ts';
import type { MachinePresence, ProtectedMachine } from '../../src/replication/index.ts';
import { MachineRight, type RightGround } from '../../src/replication/machine-right.ts';
import { MACHINE_RECORD, type MachineRecord } from '../../src/replication/records.ts';
import { DiskFaults } from '../simulation/faults.ts';
import { SimDisk } from '../simulation/sim-disk.ts';
import { SimFiles } from '../simulation/sim-files.ts';
import { AT_ONCE } from './actor.ts';
import { FakeClock } from './fake-clock.ts';
import type { CleanUp } from './temporary.ts';

export const LEASED_MACHINE = `${'0'.repeat(25)}m`;
const LEASE_MS = 10_000;
const siteIdOf = (letter: string) => `${'0'.repeat(25)}${letter}`;
const RUN_DIRECTORY = '/run';
/** As the real guard has it. */
const PATIENCE_MS = 5_000;

/** Guards without a process and without a guest: until when it may run, by whom it was told that. */
class ToldGuards implements LeaseGuards {
  readonly #clock: FakeClock;
  /** Until when the guest may run, while there is a guard. */
  untilMs: number | undefined;
  /** The guest has ended, and its guard with it. */
  #gone = Promise.withResolvers<void>();
  /** No guard can be started. */
  startFails: Failure | undefined;
  /** How often one was looked for. */
  lookedFor = 0;
  /** What its next dismissal fails with. */
  dismissalFails: Failure | undefined;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  expect(): Promise<void> {
    return Promise.resolve();
  }

  async of(_runDirectory: string, { goesOn = false } = {}): Promise<LeaseGuard> {
    this.lookedFor += 1;
    if (this.untilMs === undefined && this.startFails) throw this.startFails;
    this.untilMs ??= this.#clock.monotonicMs() + (goesOn ? 0 : PATIENCE_MS);
    return {
      gone: this.#gone.promise,
      lend: async (untilMs) => {
        this.untilMs = untilMs;
        return this.#clock.monotonicMs() < untilMs ? 'runs' : 'stopped';
      },
      dismiss: () => this.release(),
      disconnect: () => undefined,
    };
  }

  end(): void {
    this.untilMs = undefined;
    this.#gone.resolve();
    this.#gone = Promise.withResolvers();
  }

  /** As the real one: its time is without end before it ends. */
  async release(): Promise<void> {
    if (this.untilMs === undefined) return;
    this.untilMs = Number.POSITIVE_INFINITY;
    const failure = this.dismissalFails;
    this.dismissalFails = undefined;
    if (failure) throw failure;
    this.untilMs = undefined;
  }
}

/** A machine that runs, with its real record and right; of everything else there is nothing. */
function machineAt(
  { siteId, files, clock }: { siteId: string; files: SimFiles; clock: FakeClock },
  targets: readonly string[],
  claim: Claim,
) {
  const path = '/machine.json';
  const place = {
    store: (record: MachineRecord) => storeRecord(files, path, MACHINE_RECORD, record),
    load: () => loadRecord(files, path, MACHINE_RECORD),
    log: silentLog,
  };
  const record: MachineRecord = {
    ...{ machineId: LEASED_MACHINE, name: 'web', kind: 'managed', createdAtMs: 0, epoch: claim.epoch },
    ...{ disks: [], protection: null, sockets: { qmpPath: `${RUN_DIRECTORY}/qmp` } },
    configuration: {
      ...{ name: 'web', uuid: '00000000-0000-4000-8000-000000000001', architecture: 'x86_64' },
      ...{ chipset: 'q35', firmware: 'bios', cpus: 1, memoryBytes: 2 ** 26, disks: [], nics: [] },
      guestAgent: false,
    },
  };
  const kept = new KeptRecord(place, record);
  const changing = new Mutex();
  const machine = {
    running: {} as object | undefined,
    presence: { state: 'running' } as MachinePresence,
    targets: targets.map((target) => ({ siteId: target })),
    /** Called by whatever changes its right. */
    onTenure: (): void => undefined,
    right: new MachineRight({
      ...{ siteId, clock },
      alone: <T>(work: () => Promise<T>) => changing.run(work),
      ground: () => ({ kept, deliveries: { progress: [] }, process: { tell: () => machine.onTenure() } }),
    } as unknown as RightGround),
    get record() {
      return kept.now;
    },
  };
  return machine;
}

type Call = (from: string, to: string, name: string, body: Json) => Promise<Json>;

async function openSite(t: CleanUp, siteId: string, clock: FakeClock, call: Call) {
  const faults = new DiskFaults();
  const files = new SimFiles(new SimDisk(), AT_ONCE, faults);
  const alerts = new Map<string, Failure>();
  const sink = {
    raise: (key: string, _severity: string, failure: Failure) => void alerts.set(key, failure),
    clear: (key: string) => void alerts.delete(key),
  };
  const records = await VoteRecords.open({ files, alerts: sink }, '/');
  const guards = new ToldGuards(clock);
  const site = {
    ...{ siteId, faults, records, guards, alerts },
    machine: undefined as ReturnType<typeof machineAt> | undefined,
    /** Where it stands with a replica of the machine, which comes from one site. */
    replica: undefined as { tenure: Tenure; readonly sourceSiteId: string } | undefined,
  };
  const tools = {
    ...{ siteId, clock, bootClock: clock, log: silentLog, alerts: sink, audit: { note: () => undefined } },
    client: (to: string) => ({ call: (name: string, body: Json) => call(siteId, to, name, body) }),
  };
  const votes = new LeaseVotes({
    ...{ ...tools, records },
    standing: () => site.machine?.right.tenure ?? site.replica?.tenure,
    settle: async () => site.machine?.right.settle(),
    leaseOf: () => site.machine?.record.lease,
    hear: async (_machineId, claim) => {
      const { machine, replica } = site;
      if (machine) return void (await machine.right.hear(claim));
      if (replica?.sourceSiteId !== claim.siteId)
        throw replicationFailure('REPLICATION_NOT_YOURS', 'a stranger');
      site.replica = { ...replica, tenure: afterHearing(replica.tenure, siteId, claim) };
    },
  });
  const machine = () => site.machine as unknown as ProtectedMachine;
  const leases = new Leases({
    ...{ ...tools, guards, votes, onChanged: () => undefined },
    machines: {
      get: () => (site.machine ? ({ machine: machine() } as AtHome) : undefined),
      list: () => (site.machine ? [{ machine: machine() } as AtHome] : []),
    },
  });
  t.after(async () => {
    await leases.close();
    await votes.close();
  });
  return Object.assign(site, {
    votes,
    leases,
    /** The machine is at home here from now on, by a claim of that epoch, and replicated to those. */
    makeHome: async (epoch: number, targets: readonly string[]) => {
      site.machine = machineAt({ siteId, files, clock }, targets, { epoch, siteId });
      site.machine.onTenure = () => leases.look(LEASED_MACHINE);
      site.replica = undefined;
      await site.machine.right.runBy(undefined);
    },
    /** `vm lease`. */
    lease: (terms: Omit<LeaseTerms, 'leaseMs'>) => leases.begins(machine(), { ...terms, leaseMs: LEASE_MS }),
    /** `vm lease --off`. */
    endLeases: (isLost = false) => leases.ends(machine(), isLost),
    record: () => records.get(LEASED_MACHINE),
  });
}
type AtHome = NonNullable<ReturnType<LeasesTools['machines']['get']>>;

/** Sites that know each other, with their real records, votes and leases; a call goes at once, unless a site is down. */
export function leaseSites(t: CleanUp) {
  const clock = new FakeClock();
  const down = new Set<string>();
  /** Calls by these names are lost. */
  const lost = new Set<string>();
  /** Calls by these names arrive when that comes to pass. */
  const slow = new Map<string, Promise<void>>();
  const asked: { readonly from: string; readonly to: string; readonly name: string; readonly body: Json }[] =
    [];
  /** Nobody is paired with these any more. */
  const revoked = new Set<string>();
  const sites = new Map<string, Awaited<ReturnType<typeof openSite>>>();
  const call: Call = async (from, to, name, body) => {
    asked.push({ from, to, name, body });
    if (revoked.has(to)) throw controlFailure('SITE_PEER_UNKNOWN', `site ${to} is not paired with this one`);
    await slow.get(name);
    if (down.has(from) || down.has(to) || lost.has(name))
      throw peerFailure('PEER_UNREACHABLE', 'a cable is cut');
    const handler = sites.get(to)!.votes.calls[name]!;
    const { signal } = new AbortController();
    return handler({ siteId: from } as Peer, JSON.parse(JSON.stringify(body)) as Json, signal);
  };
  return {
    ...{ clock, down, lost, slow, revoked, asked, call },
    /** One site more, by the last letter of its id. */
    add: async (letter: string) => {
      const site = await openSite(t, siteIdOf(letter), clock, call);
      sites.set(site.siteId, site);
      return site;
    },
  };
}

/** A machine that is at home at a site, with its recovery site and a witness; by no leases yet. */
export async function unleasedSites(t: CleanUp) {
  const world = leaseSites(t);
  const [home, recovery, witness] = [await world.add('p'), await world.add('r'), await world.add('w')];
  await home.makeHome(1, [recovery.siteId]);
  const claim = { epoch: 1, siteId: home.siteId };
  recovery.replica = { tenure: { state: 'follows', claim }, sourceSiteId: home.siteId };
  const terms = { recoverySiteId: recovery.siteId, witnessSiteId: witness.siteId };
  return { ...world, home, recovery, witness, claim, terms };
}

export type LeasedSites = Awaited<ReturnType<typeof leasedSites>>;

/** It runs at its home by leases of both; and there is a fourth site, where it may be some day. */
export async function leasedSites(t: CleanUp) {
  const sites = await unleasedSites(t);
  const later = await sites.add('x');
  await sites.home.lease(sites.terms);
  await sites.clock.turn(5_000);
  return { ...sites, later };
}
