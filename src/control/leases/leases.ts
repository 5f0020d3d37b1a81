import type { LeaseRequest } from '../../api/index.ts';
import { isFailure } from '../../lib/errors.ts';
import { KeyedMutex } from '../../lib/keyed-mutex.ts';
import type { LeaseTerms } from '../../recovery-point/index.ts';
import type { ProtectedMachine } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import type { Machines } from '../machines/machines.ts';
import { LeaseKeeper, type LeaseKeeperTools, type LeaseStanding, runDirectoryOf } from './lease-keeper.ts';
import type { LeaseVotes } from './lease-votes.ts';
import { askVoter, checkedLease, EndAnswer, partiesOf } from './lease-wire.ts';

export interface LeasesTools extends LeaseKeeperTools {
  readonly votes: Pick<LeaseVotes, 'begun' | 'endsSoon' | 'holdForGood' | 'tell'>;
  readonly machines: Pick<Machines, 'list' | 'get'>;
}

const CALL_LIMIT_MS = 10_000;
/** The part of a lease that an end may wait for its answer: nobody renews meanwhile. */
const END_WAITS = 0.25;
/** A guest whose leases begin is stopped after this time if nobody has lent it by then. */
const FIRST_LEASE_WITHIN_MS = 5_000;
const NOTE_AGAIN_AFTER_MS = 5_000;
const DEFAULT_LEASE_MS = 30_000;

/** The machines of this site that run by leases. docs/failover.md, «Leases and a witness». */
export class Leases {
  readonly #o: LeasesTools;
  readonly #keepers = new Map<string, { readonly keeper: LeaseKeeper; readonly machine: ProtectedMachine }>();
  readonly #changing = new KeyedMutex();
  /** Machines whose leases are being ended: nobody is asked for one, which would be the beginning of another. */
  readonly #ending = new Set<string>();

  /** When those leases of a machine began that ended last: what begins after them is told from them also if the clock is set back. */
  readonly #endedAtMs = new Map<string, number>();
  #isClosed = false;

  constructor(o: LeasesTools) {
    this.#o = o;
  }

  begin(): void {
    for (const { machine } of this.#o.machines.list()) this.look(machine.record.machineId);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#keepers.keys()].map((machineId) => this.#end(machineId)));
  }

  /** To be called when something has become of a machine: it is there, it runs, its right is another. */
  look(machineId: string): void {
    const machine = this.#o.machines.get(machineId)?.machine;
    const entry = this.#keepers.get(machineId);
    if (entry && entry.machine !== machine) void this.#end(machineId);
    if (!machine || this.#ending.has(machineId)) return;
    if (machine.record.lease) this.#of(machine).ring();
    else void this.#changing.run(machineId, () => this.#endLeftBehind(machine));
  }

  /** A guard that nobody will tell of a lease: whoever began or ended them was interrupted. Never rejects. */
  async #endLeftBehind(machine: ProtectedMachine): Promise<void> {
    if (machine.record.lease || !machine.running) return;
    try {
      await this.#dismissGuard(machine);
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#o.log.error('lease.guard-left', { machine: machine.record.name, reason: error.message });
    }
  }

  standing(machineId: string): LeaseStanding | undefined {
    return this.#keepers.get(machineId)?.keeper.standing;
  }

  /** Before a machine is started. Throws LEASE_NOT_LENT; one that runs by no lease may start. */
  beforeStart(machine: ProtectedMachine): Promise<void> {
    return this.#changing.run(machine.record.machineId, async () => {
      // Whoever does not hold it is told so by its start.
      if (!machine.record.lease || machine.right.tenure.state !== 'holds') return;
      await this.#of(machine).acquire();
      await this.#o.guards.expect(runDirectoryOf(machine));
    });
  }

  /**
   * From now on the machine runs by leases: one of its lenders has said that it would lend it, and its guard is there before any other
   * site hears of that. Throws LEASE_IMPOSSIBLE, LEASE_REFUSED, MACHINE_LEASE_UNGUARDED; nothing has changed then.
   */
  begins(machine: ProtectedMachine, terms: LeaseTerms): Promise<void> {
    return this.#changing.run(machine.record.machineId, async () => {
      this.#check(machine, terms);
      const afterMs = (this.#endedAtMs.get(machine.record.machineId) ?? 0) + 1;
      const begun = { ...terms, begunAtMs: Math.max(this.#o.clock.wallMs(), afterMs) };
      await this.#checkWouldLend(machine, begun);
      try {
        await this.#guard(machine);
        await machine.right.runBy(begun);
      } finally {
        // The keeper tells the guard of a lease, at once; or a guard that nobody needs is dismissed.
        this.look(machine.record.machineId);
      }
      await this.#noteBegun(machine);
    });
  }

  /**
   * What is known here of earlier leases is no more. They have begun already, whatever becomes of that: it is tried again, and until then
   * nobody is told what those who lend the machine now may not hear. Never rejects.
   */
  async #noteBegun(machine: ProtectedMachine): Promise<void> {
    const { lease, machineId, name } = machine.record;
    if (!lease || this.#isClosed) return;
    try {
      await this.#o.votes.begun(partiesOf(machine.record, lease, this.#o.siteId));
    } catch (error) {
      this.#o.log.error('lease.begin-not-noted', { machine: name, error });
      this.#o.clock.after(NOTE_AGAIN_AFTER_MS, () => {
        void this.#changing.run(machineId, () => this.#noteBegun(machine));
      });
    }
  }

  /** One that an end of leases has left knows of no end of its own time, and would never stop its guest. */
  async #guard(machine: ProtectedMachine): Promise<void> {
    const guard = machine.running && (await this.#o.guards.of(runDirectoryOf(machine)));
    if (!guard) return;
    try {
      await guard.lend(this.#o.bootClock.monotonicMs() + FIRST_LEASE_WITHIN_MS);
    } finally {
      guard.disconnect();
    }
  }

  /** Else its guest would be stopped as soon as its guard is out of patience. Throws LEASE_REFUSED. */
  async #checkWouldLend({ record, right }: ProtectedMachine, terms: LeaseTerms): Promise<void> {
    await right.settle();
    const parties = partiesOf(record, terms, this.#o.siteId);
    const ask = { kind: 'renew', claim: right.tenure.claim } as const;
    const said = await Promise.all(
      [terms.recoverySiteId, terms.witnessSiteId].map(async (siteId) => {
        try {
          const o = { timeoutMs: CALL_LIMIT_MS, call: 'lease.would' } as const;
          const answer = await askVoter(this.#o.client(siteId), parties, ask, o);
          return answer.granted ? undefined : `site ${siteId}: ${answer.why}`;
        } catch (error) {
          if (!isFailure(error)) throw error;
          return `site ${siteId}: ${error.message}`;
        }
      }),
    );
    if (said.some((refusal) => refusal === undefined)) return;
    const { machineId, name } = record;
    throw controlFailure('LEASE_REFUSED', `nobody would lend ${name}: ${said.join('; ')}`, {
      context: { machineId },
    });
  }

  #check({ record, right, targets }: ProtectedMachine, terms: LeaseTerms): void {
    const { name, kind, lease } = record;
    const impossible = (why: string) =>
      controlFailure('LEASE_IMPOSSIBLE', `${name} cannot run by leases: ${why}`);
    if (lease) throw impossible('it does so already');
    if (kind !== 'managed') throw impossible('somebody else starts it, and could start it again without one');
    if (right.tenure.state !== 'holds') throw impossible('this site does not hold it');
    if (!targets.some(({ siteId }) => siteId === terms.recoverySiteId))
      throw impossible(`site ${terms.recoverySiteId} is none of its targets`);
    const { witnessSiteId, recoverySiteId } = terms;
    if (targets.some(({ siteId }) => siteId === witnessSiteId))
      throw impossible('its witness gets copies of it, and could be told to bring it up');
    if (witnessSiteId === recoverySiteId || witnessSiteId === this.#o.siteId)
      throw impossible('the witness must be a third site');
  }

  /**
   * It runs by no lease any more: first the other site may not ask for it by votes, then its guard goes. `isLost`: a person has confirmed
   * that the other site is down; it is not asked, and hears as soon as it answers, as does the witness that the machine is held for good. Throws
   * LEASE_IMPOSSIBLE, and what a call to the other site throws.
   */
  ends(machine: ProtectedMachine, isLost: boolean): Promise<void> {
    const { machineId } = machine.record;
    return this.#changing.run(machineId, async () => {
      const { lease } = machine.record;
      // What was broken off goes on.
      if (!lease) return this.#dismissGuard(machine).finally(() => this.#o.votes.tell());
      checkDecides(machine);
      this.#ending.add(machineId);
      try {
        await this.#keepers.get(machineId)?.keeper.rest();
        // What was asked last may have been answered by a site that holds it.
        checkDecides(machine);
        if (isLost) await this.#holdForGood(machine, lease);
        else {
          await this.#tellEnd(machine, lease, lease.recoverySiteId);
          const parties = partiesOf(machine.record, lease, this.#o.siteId);
          await this.#o.votes.endsSoon(parties, machine.right.tenure.claim);
        }
        await machine.right.runBy(undefined);
        this.#endedAtMs.set(machineId, lease.begunAtMs ?? 0);
      } finally {
        await this.#end(machineId);
        this.#ending.delete(machineId);
        // They go on, or a guard that could not be dismissed is dismissed then.
        this.look(machineId);
        // What the witness knows of them keeps nobody from anything: nobody else may ask for votes any more.
        if (!machine.record.lease) this.#o.votes.tell();
      }
      await this.#dismissGuard(machine);
    });
  }

  async #tellEnd(
    { record: { machineId, name }, right }: ProtectedMachine,
    { begunAtMs, leaseMs }: LeaseTerms,
    siteId: string,
  ): Promise<void> {
    const timeoutMs = Math.min(CALL_LIMIT_MS, leaseMs * END_WAITS);
    const which = begunAtMs === undefined ? {} : { begunAtMs };
    const body = { machineId, claim: { ...right.tenure.claim }, ...which };
    const said = await this.#o.client(siteId).call('lease.end', body, { timeoutMs });
    const answer = checkedLease(EndAnswer, said);
    if (answer.ended) return;
    await right.hear(answer.entitled);
    throw controlFailure(
      'LEASE_IMPOSSIBLE',
      `site ${siteId} knows that ${name} is wanted or held elsewhere`,
      {
        context: { machineId, siteId: answer.entitled.siteId },
      },
    );
  }

  /** The other site still knows of the leases until it has heard: its question is answered by the witness with no. */
  #holdForGood({ record, right }: ProtectedMachine, lease: LeaseTerms): Promise<void> {
    const parties = partiesOf(record, lease, this.#o.siteId);
    return this.#o.votes.holdForGood(parties, right.tenure.claim, lease.recoverySiteId);
  }

  async #dismissGuard(machine: ProtectedMachine): Promise<void> {
    if (!machine.running) return;
    await this.#o.guards.release(runDirectoryOf(machine));
  }

  #of(machine: ProtectedMachine): LeaseKeeper {
    const { machineId } = machine.record;
    const entry = this.#keepers.get(machineId);
    if (entry) return entry.keeper;
    const keeper = new LeaseKeeper(machine, this.#o);
    this.#keepers.set(machineId, { keeper, machine });
    keeper.begin();
    return keeper;
  }

  async #end(machineId: string): Promise<void> {
    const entry = this.#keepers.get(machineId);
    this.#keepers.delete(machineId);
    await entry?.keeper.close();
  }
}

/** Throws LEASE_IMPOSSIBLE. */
function checkDecides({ record: { machineId, name }, right }: ProtectedMachine): void {
  if (right.tenure.state === 'holds') return;
  const said = `${name} is held by another site, which decides of its leases`;
  throw controlFailure('LEASE_IMPOSSIBLE', said, { context: { machineId } });
}

/**
 * Leases that stand need the machine, its replication and the other site that may run it: that one could be given the machine by a vote, and
 * nobody would hear of it here. One that another site holds is in nobody's way. Throws MACHINE_LEASED.
 */
export function checkUnleased({ record, right }: Pick<ProtectedMachine, 'record' | 'right'>): void {
  if (!record.lease || right.tenure.state !== 'holds') return;
  throw controlFailure('MACHINE_LEASED', `${record.name} runs by leases`);
}

/** The terms that a person asks for, with the sites by their ids. */
export function termsOf(
  { leaseMs = DEFAULT_LEASE_MS }: LeaseRequest,
  sites: { readonly witnessSiteId: string; readonly recoverySiteId: string },
): LeaseTerms {
  return { ...sites, leaseMs };
}
