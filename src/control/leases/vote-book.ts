import type { Clock } from '../../lib/clock.ts';
import { KeyedMutex } from '../../lib/keyed-mutex.ts';
import type { Claim, Tenure } from '../../recovery-point/index.ts';
import { controlFailure } from '../errors.ts';
import type { VoteRecord, VoteRecords } from './lease-records.ts';

export interface VoteBookTools {
  readonly siteId: string;
  readonly records: VoteRecords;
  /** Counts also while the host sleeps. */
  readonly bootClock: Clock;
  /** Where this site stands with the right to run a machine; undefined if it has nothing to do with it but its vote. */
  readonly standing: (machineId: string) => Tenure | undefined;
  /** Makes durable where it stands: nothing is said of it before. */
  readonly settle: (machineId: string) => Promise<void>;
}

/**
 * Another site holds a machine by this claim: who holds it here by a lower one is fenced, durably. Throws REPLICATION_NOT_YOURS where that
 * site has nothing to do with it.
 */
export type HearClaim = (machineId: string, claim: Claim) => Promise<void>;

/** What lending, asking and telling know in common: the records, who changes one, and which machines this site asks for itself. */
export class VoteBook {
  readonly siteId: string;
  readonly records: VoteRecords;
  readonly bootClock: Clock;
  readonly standing: VoteBookTools['standing'];
  readonly settle: VoteBookTools['settle'];
  readonly #changing = new KeyedMutex();
  /** Machines that this site asks for at this moment, or has a vote for that it has not made use of: it lends nothing of them. */
  readonly #sought = new Set<string>();

  constructor({ siteId, records, bootClock, standing, settle }: VoteBookTools) {
    this.siteId = siteId;
    this.records = records;
    this.bootClock = bootClock;
    this.standing = standing;
    this.settle = settle;
  }

  /** One change of a machine's record after the other. */
  alone<T>(machineId: string, work: () => Promise<T>): Promise<T> {
    return this.#changing.run(machineId, work);
  }

  nowMs(): number {
    return this.bootClock.monotonicMs();
  }

  isSought(machineId: string): boolean {
    return this.#sought.has(machineId);
  }

  beginSeeking(machineId: string): void {
    this.#sought.add(machineId);
  }

  endSeeking(machineId: string): void {
    this.#sought.delete(machineId);
  }

  /**
   * Durable on return; nothing is left of leases that are at an end when nobody is to hear of that. But their witness knows by which claim
   * they have ended: nobody who comes by a lower one may have the machine lent.
   */
  keep(record: VoteRecord): Promise<unknown> {
    const { machineId, ended, seeking, toTell, toEnd, toHold, witnessSiteId } = record;
    const isOwed = [seeking, toTell, toEnd, toHold].some(Boolean);
    const isDone = ended && !isOwed && witnessSiteId !== this.siteId;
    return isDone ? this.records.remove(machineId) : this.records.store(record);
  }

  /** Whether this site may ask for the right to run a machine by votes. */
  isParty(machineId: string): boolean {
    const record = this.records.get(machineId);
    return record !== undefined && isParty(record, this.siteId);
  }

  /** The parties of a machine's leases, as this site knows them as one of them. Throws LEASE_UNKNOWN. */
  need(machineId: string): VoteRecord {
    const record = this.records.get(machineId);
    if (record && isParty(record, this.siteId)) return record;
    throw leaseUnknown(machineId);
  }

  /** The claim by which this site knows the machine to be held, at home or elsewhere. Throws LEASE_UNKNOWN. */
  overOf(machineId: string): Claim {
    const over = this.standing(machineId)?.claim;
    if (over) return over;
    throw controlFailure('LEASE_UNKNOWN', 'this site has no replica of the machine', {
      context: { machineId },
    });
  }
}

function isParty({ siteIds, ended }: VoteRecord, siteId: string): boolean {
  return !ended && siteIds.includes(siteId);
}

export function leaseUnknown(machineId: string) {
  const said = 'this site knows of no leases of the machine';
  return controlFailure('LEASE_UNKNOWN', said, { context: { machineId } });
}
