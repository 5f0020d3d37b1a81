import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { PeerClient } from '../../peer/index.ts';
import { type Claim, compareClaims, type LeaseTerms } from '../../recovery-point/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import { Wakeup } from '../base/wakeup.ts';
import { controlFailure } from '../errors.ts';
import {
  isSameParties,
  type LeaseEnd,
  type LeaseHold,
  type Parties,
  type VoteRecord,
  withoutHold,
} from './lease-records.ts';
import { askVoter, CALL_LIMIT_MS, checkedLease, EndAnswer, type LeaseParties } from './lease-wire.ts';
import type { HearClaim, VoteBook } from './vote-book.ts';

const TELL_AGAIN_AFTER_MS = 5_000;

export interface LeaseTellerTools {
  readonly book: VoteBook;
  readonly clock: Clock;
  readonly log: Log;
  readonly client: (siteId: string) => Pick<PeerClient, 'call'>;
  /** Makes durable that a machine is held here for good. */
  readonly holdForGood: (record: VoteRecord, claim: Claim) => Promise<void>;
  readonly hear: HearClaim;
  readonly alerts: AlertSink;
  /** By which leases a machine runs that is at home here. */
  readonly leaseOf: (machineId: string) => LeaseTerms | undefined;
}

/** Tells witnesses what they have to know, again and again until they have heard it: what this site holds, and what it has let go. */
export class LeaseTeller {
  readonly #o: LeaseTellerTools;
  readonly #stop = new AbortController();
  /** Machines of which what was told is told once more. */
  readonly #again = new Set<string>();
  /** What must work before what is asked for is let go of, by machine. */
  readonly #toMakeSure = new Map<string, () => Promise<void>>();
  readonly #bell: Wakeup;
  #telling: Promise<void> | undefined;

  constructor(o: LeaseTellerTools) {
    this.#o = o;
    this.#bell = new Wakeup(o.clock);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#telling;
  }

  /** What this site has asked for is not wanted any more, and the witness hears that as soon as `makeSure` has worked. */
  letGo(machineId: string, makeSure: () => Promise<void>): void {
    this.#toMakeSure.set(machineId, makeSure);
    this.tell();
  }

  /** What is held for good is told once more: a witness may have lost what it knew. */
  tellAgain(machineIds: readonly string[]): void {
    for (const machineId of machineIds) this.#again.add(machineId);
    this.tell();
  }

  /**
   * Of ended leases of a machine these ends are still to be told: where nobody is left to hear of one, nobody is alerted of it. Called before
   * that is stored: a process that is killed then tells it again, and one that had stored it would leave the alert to nobody.
   */
  endsLeft(machineId: string, toEnd: readonly LeaseEnd[] | undefined): void {
    if (this.#endsOf({ machineId, toEnd }).length === 0) this.#o.alerts.clear(`lease-end:${machineId}`);
  }

  /** Something is to be told, or may be. */
  tell(): void {
    // One that waits for a witness to come back looks at what is new.
    if (this.#telling) this.#bell.ring();
    this.#telling ??= this.#keepTelling().finally(() => {
      this.#telling = undefined;
    });
  }

  async #keepTelling(): Promise<void> {
    const { signal } = this.#stop;
    const { book } = this.#o;
    for (;;) {
      const open = this.#untold();
      if (open.length === 0 || signal.aborted) return;
      const heard = await Promise.all(
        open.flatMap((record) => [
          ...(book.records.isUnsure(record.machineId)
            ? [this.#isDone(record, this.#storeAgain(record))]
            : []),
          ...(this.#isOpen(record) ? [this.#isDone(record, this.#tellOne(record, signal))] : []),
          ...this.#endsOf(record).map((end) => this.#isDone(record, this.#tellEnd(record, end, signal))),
          ...this.#holdsOf(record).map((hold) => this.#isDone(record, this.#tellHold(record, hold, signal))),
        ]),
      );
      if (heard.every(Boolean)) continue;
      try {
        await this.#bell.wait(TELL_AGAIN_AFTER_MS, signal);
      } catch {
        return; // The site closes; the next process tells.
      }
    }
  }

  async #isDone({ machineName }: VoteRecord, telling: Promise<void>): Promise<boolean> {
    try {
      await telling;
      return true;
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#o.log.warn('lease.not-told', { machine: machineName, error });
      return false;
    }
  }

  #untold(): VoteRecord[] {
    const { records } = this.#o.book;
    return records
      .list()
      .filter(
        (record) =>
          records.isUnsure(record.machineId) ||
          this.#isOpen(record) ||
          this.#endsOf(record).length > 0 ||
          this.#holdsOf(record).length > 0,
      );
  }

  /** What could not be stored may be on disk: a question, say, that the next process would take for one that was asked. */
  #storeAgain({ machineId }: VoteRecord): Promise<void> {
    const { book } = this.#o;
    return book.alone(machineId, async () => {
      const known = book.records.get(machineId);
      if (known && book.records.isUnsure(machineId)) await book.records.store(known);
    });
  }

  #isOpen(record: VoteRecord): boolean {
    const isToLetGo = record.seeking !== undefined && this.#isLetGo(record.machineId);
    return isToLetGo || this.#toHold(record) !== undefined;
  }

  /** Who is the witness of leases that stand hears nothing of the end of others. */
  #endsOf({
    machineId,
    toEnd = [],
  }: {
    readonly machineId: string;
    readonly toEnd?: readonly LeaseEnd[] | undefined;
  }): readonly LeaseEnd[] {
    return toEnd.filter(({ siteId }) => siteId !== this.#o.leaseOf(machineId)?.witnessSiteId);
  }

  /** A machine that runs by leases again is held for no longer than those last, as far as their witness and their other site know. */
  #isLeased(machineId: string, parties: Parties): boolean {
    const lease = this.#o.leaseOf(machineId);
    if (!lease) return false;
    const { witnessSiteId, recoverySiteId } = lease;
    return isSameParties({ witnessSiteId, siteIds: [this.#o.book.siteId, recoverySiteId] }, parties);
  }

  #holdsOf({ machineId, toHold = [] }: VoteRecord): readonly LeaseHold[] {
    return toHold.filter((hold) => !this.#isLeased(machineId, hold));
  }

  #isLetGo(machineId: string): boolean {
    return !this.#o.book.isSought(machineId) || this.#toMakeSure.has(machineId);
  }

  #isAbove(seeking: Claim, record: VoteRecord): boolean {
    const held = this.#toHold(record);
    return held !== undefined && compareClaims(seeking, held) > 0;
  }

  #toHold(record: VoteRecord): Claim | undefined {
    const { machineId, toTell, told } = record;
    if (this.#isLeased(machineId, record)) return undefined;
    return toTell ?? (this.#again.has(machineId) ? told : undefined);
  }

  /** What an earlier process has asked for, and got, is not let go. */
  #isHeldBy(machineId: string, claim: Claim): boolean {
    const tenure = this.#o.book.standing(machineId);
    return tenure?.state === 'holds' && compareClaims(tenure.claim, claim) >= 0;
  }

  async #tellOne(record: VoteRecord, signal: AbortSignal): Promise<void> {
    const { book, holdForGood } = this.#o;
    const { machineId, seeking } = record;
    const makeSure = this.#toMakeSure.get(machineId);
    if (makeSure) {
      await makeSure();
      this.#toMakeSure.delete(machineId);
      book.endSeeking(machineId);
    }
    const o = { timeoutMs: CALL_LIMIT_MS, signal };
    // A vote by a higher claim would have the witness refuse what is held: that is let go of first.
    const isFirst = seeking && this.#isLetGo(machineId) && this.#isAbove(seeking, record);
    const held = isFirst ? undefined : this.#toHold(record);
    await book.settle(machineId);
    if (!held && this.#isHeldBy(machineId, seeking!)) {
      await book.alone(machineId, () => holdForGood(record, book.overOf(machineId)));
      return;
    }
    const claim = held ?? seeking!;
    if (held) await this.#tellHeld(record, claim, o);
    else await this.#tellLetGo(record, claim, o);
    this.#again.delete(machineId);
    await book.alone(machineId, async () => {
      const now = book.records.get(machineId);
      if (!now) return;
      const { toTell: told, seeking: sought, ...others } = now;
      const isTold = told && compareClaims(told, claim) === 0;
      const isLetGo = sought && compareClaims(sought, claim) === 0 && !book.isSought(machineId);
      if (!isTold && !isLetGo) return;
      await book.keep({
        ...others,
        ...(told && !isTold ? { toTell: told } : {}),
        ...(isTold ? { told } : {}),
        ...(sought && !isLetGo ? { seeking: sought } : {}),
      });
    });
  }

  /** A witness that counts other sites by now has no vote of these; while leases stand their witness may be paired anew. */
  async #tellLetGo(
    { machineId, witnessSiteId, ended }: VoteRecord,
    claim: Claim,
    o: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<void> {
    try {
      const witness = this.#o.client(witnessSiteId);
      await witness.call('lease.let-go', { machineId, claim: { ...claim } }, o);
    } catch (error) {
      const isOver = isFailure(error, 'LEASE_NOT_YOURS') || (ended && isFailure(error, 'SITE_PEER_UNKNOWN'));
      if (!isOver) throw error;
    }
  }

  /** That leases are no more; a witness that knows of a higher claim than who ended them keeps what it knows. */
  async #tellEnd({ machineId }: VoteRecord, end: LeaseEnd, signal: AbortSignal): Promise<void> {
    const { book, client, hear, alerts } = this.#o;
    const { siteId, claim, begunAtMs } = end;
    const body = { machineId, claim: { ...claim }, ...(begunAtMs === undefined ? {} : { begunAtMs }) };
    try {
      const said = await client(siteId).call('lease.end', body, { timeoutMs: CALL_LIMIT_MS, signal });
      const answer = checkedLease(EndAnswer, said);
      if (!answer.ended && claim.siteId === book.siteId) await hear(machineId, answer.entitled);
    } catch (error) {
      if (!isNobodyLeft(error) && !signal.aborted) {
        alerts.raise(`lease-end:${machineId}`, 'warning', failureOf(error), machineId);
        this.endsLeft(machineId, book.records.get(machineId)?.toEnd);
      }
      if (!isNobodyLeft(error)) throw error;
    }
    await book.alone(machineId, async () => {
      const now = book.records.get(machineId);
      if (!now?.toEnd) return;
      const { toEnd, ...others } = now;
      const left = toEnd.filter((one) => JSON.stringify(one) !== JSON.stringify(end));
      this.endsLeft(machineId, left);
      await book.keep({ ...others, ...(left.length > 0 ? { toEnd: left } : {}) });
    });
  }

  /** That it is held; a witness that knows of a holder by a higher claim is believed. */
  async #tellHeld(
    record: VoteRecord,
    claim: Claim,
    o: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const tenure = this.#o.book.standing(record.machineId);
    // What was held once, and was given up or lost since, is nothing to tell any more.
    if (tenure?.state !== 'holds' || compareClaims(tenure.claim, claim) !== 0) return;
    if (!this.#isLeased(record.machineId, record)) await this.#sayHeld(record, claim, o);
  }

  /**
   * Throws LEASE_SOUGHT where somebody may hold the machine by a vote that the witness has not heard of again: when that is let go, it
   * knows what it knew before, and not that the machine is held.
   */
  async #sayHeld(
    parties: LeaseParties,
    claim: Claim,
    o: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const { client, hear } = this.#o;
    const { machineId, machineName, witnessSiteId } = parties;
    try {
      const answer = await askVoter(client(witnessSiteId), parties, { kind: 'hold', claim }, o);
      if (answer.granted) return;
      if (answer.isHeld) {
        if (compareClaims(answer.entitled, claim) > 0) await hear(machineId, answer.entitled);
        return;
      }
      const { siteId } = answer.entitled;
      const said = `site ${witnessSiteId} does not count that ${machineName} is held here: site ${siteId} has asked for it`;
      throw controlFailure('LEASE_SOUGHT', said, { context: { machineId, siteId } });
    } catch (error) {
      // It knows of other sites by now, and votes for none of these.
      if (!isFailure(error, 'LEASE_NOT_YOURS', 'LEASE_PARTIES_DIFFER')) throw error;
    }
  }

  /** As `#tellHeld`, to the witness of earlier leases. */
  async #tellHold(record: VoteRecord, hold: LeaseHold, signal: AbortSignal): Promise<void> {
    const { book } = this.#o;
    const { machineId } = record;
    await book.settle(machineId);
    const tenure = book.standing(machineId);
    try {
      if (tenure?.state === 'holds' || tenure?.state === 'cedes')
        await this.#sayHeld({ ...record, ...hold }, tenure.claim, { timeoutMs: CALL_LIMIT_MS, signal });
    } catch (error) {
      // Those leases are no more: this is told to nobody but a witness that is still paired.
      if (!isFailure(error, 'SITE_PEER_UNKNOWN')) throw error;
    }
    await book.alone(machineId, async () => {
      const now = book.records.get(machineId);
      if (!now) return;
      const { toHold, ...others } = now;
      const left = withoutHold(toHold, hold);
      await book.keep({ ...others, ...(left ? { toHold: left } : {}) });
    });
  }
}

/**
 * Nobody who would hear of an end: the witness counts other sites by now, whose leases those are no more, or it is paired no more. One that
 * still counts those of earlier leases (LEASE_NOT_YOURS) has to hear of it when a person has made it forget them.
 */
function isNobodyLeft(error: unknown): boolean {
  return isFailure(error, 'LEASE_PARTIES_DIFFER', 'SITE_PEER_UNKNOWN');
}
