import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { PeerClient } from '../../peer/index.ts';
import { type Claim, compareClaims, type LeaseTerms } from '../../recovery-point/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import { Wakeup } from '../base/wakeup.ts';
import { HoldWords, voteStands, wordOf } from './hold-word.ts';
import {
  isSameParties,
  type LeaseEnd,
  type LeaseHold,
  type Owed,
  type Parties,
  type VoteRecord,
  withEnd,
  withoutHold,
} from './lease-records.ts';
import { CALL_LIMIT_MS, checkedLease, EndAnswer, type LeaseParties } from './lease-wire.ts';
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
  /**
   * What a witness is to hear and cannot be told now, by machine: who holds it is not known yet, or the witness is paired no more. Whatever
   * may change that has it looked at again, and so does time; nobody is asked for it again and again.
   */
  readonly #waiting = { held: new Set<string>(), hold: new Set<string>(), letGo: new Set<string>() };
  /** What must work before what is asked for is let go of, by machine. */
  readonly #toMakeSure = new Map<string, () => Promise<void>>();
  readonly #bell: Wakeup;
  readonly #words: HoldWords;
  #telling: Promise<void> | undefined;

  constructor(o: LeaseTellerTools) {
    this.#o = o;
    this.#bell = new Wakeup(o.clock);
    this.#words = new HoldWords(o);
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
   * Of a machine this is still to be told: where nobody is left to hear of something, nobody is alerted of it. Called before that is stored: a
   * process that is killed then tells it again, and one that had stored it would leave the alert to nobody.
   */
  left(machineId: string, { toTell, told, toHold, toEnd }: Owed): void {
    const { alerts } = this.#o;
    const isToldAgain = told !== undefined && this.#again.has(machineId);
    if (this.#endsOf({ machineId, toEnd }).length === 0) alerts.clear(`lease-end:${machineId}`);
    if (!toTell && !toHold && !isToldAgain) alerts.clear(`lease-hold:${machineId}`);
  }

  /** Something is to be told, or may be. */
  tell(): void {
    for (const machineIds of Object.values(this.#waiting)) machineIds.clear();
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
          ...(this.#isOpen(record) ? [this.#isDone(record, this.#tellPaired(record, signal))] : []),
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
    return this.#isToLetGo(record) || this.#toHold(record) !== undefined;
  }

  /** Who lends the machine by leases that stand hears nothing of the end of others. */
  #endsOf({
    machineId,
    toEnd = [],
  }: {
    readonly machineId: string;
    readonly toEnd?: readonly LeaseEnd[] | undefined;
  }): readonly LeaseEnd[] {
    const { witnessSiteId, recoverySiteId } = this.#o.leaseOf(machineId) ?? {};
    return toEnd.filter(({ siteId }) => siteId !== witnessSiteId && siteId !== recoverySiteId);
  }

  /** A machine that runs by leases again is held for no longer than those last, as far as their witness and their other site know. */
  #isLeased(machineId: string, parties: Parties): boolean {
    const lease = this.#o.leaseOf(machineId);
    if (!lease) return false;
    const { witnessSiteId, recoverySiteId } = lease;
    return isSameParties({ witnessSiteId, siteIds: [this.#o.book.siteId, recoverySiteId] }, parties);
  }

  #holdsOf({ machineId, toHold = [] }: VoteRecord): readonly LeaseHold[] {
    if (this.#waiting.hold.has(machineId)) return [];
    return toHold.filter((hold) => !this.#isLeased(machineId, hold));
  }

  #isToLetGo({ machineId, seeking }: VoteRecord): boolean {
    return seeking !== undefined && this.#isLetGo(machineId) && !this.#waiting.letGo.has(machineId);
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
    if (this.#isLeased(machineId, record) || this.#waiting.held.has(machineId)) return undefined;
    return toTell ?? (this.#again.has(machineId) ? told : undefined);
  }

  /** What an earlier process has asked for, and got, is not let go. */
  #isHeldBy(machineId: string, claim: Claim): boolean {
    const tenure = this.#o.book.standing(machineId);
    return tenure?.state === 'holds' && compareClaims(tenure.claim, claim) >= 0;
  }

  /** A witness that is paired no more may be paired anew. */
  async #tellPaired(record: VoteRecord, signal: AbortSignal): Promise<void> {
    try {
      await this.#tellOne(record, signal);
    } catch (error) {
      if (!isFailure(error, 'SITE_PEER_UNKNOWN')) throw error;
      this.#waiting.held.add(record.machineId);
      this.#waiting.letGo.add(record.machineId);
    }
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
    // A vote by a higher claim would have the witness refuse what is held: that is let go of first.
    const isFirst = seeking && this.#isToLetGo(record) && this.#isAbove(seeking, record);
    const held = isFirst ? undefined : this.#toHold(record);
    if (held) {
      await this.#tellHeld(record, held, signal);
      this.#again.delete(machineId);
      this.left(machineId, book.records.get(machineId) ?? {});
      return;
    }
    await book.settle(machineId);
    if (this.#isHeldBy(machineId, seeking!)) {
      await book.alone(machineId, () => holdForGood(record, book.overOf(machineId)));
      return;
    }
    const claim = seeking!;
    await this.#tellLetGo(record, claim, signal);
    await book.alone(machineId, async () => {
      const now = book.records.get(machineId);
      if (!now?.seeking || compareClaims(now.seeking, claim) !== 0 || book.isSought(machineId)) return;
      const { seeking: _letGo, ...others } = now;
      await book.keep(others);
    });
  }

  /** A witness that counts other sites by now has no vote of these; while leases stand their witness may be paired anew. */
  async #tellLetGo(
    { machineId, witnessSiteId, ended }: VoteRecord,
    claim: Claim,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      const witness = this.#o.client(witnessSiteId);
      const o = { timeoutMs: CALL_LIMIT_MS, signal };
      await witness.call('lease.let-go', { machineId, claim: { ...claim } }, o);
    } catch (error) {
      const isOver = isFailure(error, 'LEASE_NOT_YOURS') || (ended && isFailure(error, 'SITE_PEER_UNKNOWN'));
      if (!isOver) throw error;
    }
  }

  /** That leases are no more; one that knows of a higher claim than who ended them keeps what it knows. */
  async #tellEnd(record: VoteRecord, end: LeaseEnd, signal: AbortSignal): Promise<void> {
    const { machineId } = record;
    const { book, client, hear, alerts } = this.#o;
    const { siteId, begunAtMs } = end;
    const claim = await this.#claimOf(machineId, end);
    const body = { machineId, claim: { ...claim }, ...(begunAtMs === undefined ? {} : { begunAtMs }) };
    let hasEnded = false;
    try {
      const said = await client(siteId).call('lease.end', body, { timeoutMs: CALL_LIMIT_MS, signal });
      const answer = checkedLease(EndAnswer, said);
      hasEnded = answer.ended;
      if (!answer.ended && answer.isHeld === false) throw voteStands(record, siteId);
      if (!answer.ended && claim.siteId === book.siteId) await hear(machineId, answer.entitled);
    } catch (error) {
      if (!isNobodyLeft(error) && !signal.aborted) {
        alerts.raise(`lease-end:${machineId}`, 'warning', failureOf(error), machineId);
        this.left(machineId, book.records.get(machineId) ?? {});
      }
      if (!isNobodyLeft(error)) throw error;
    }
    await book.alone(machineId, async () => {
      await book.settle(machineId);
      await this.#keepHeard(machineId, end, hasEnded);
    });
  }

  /** Who may know already who holds the machine since takes no end by a lower claim. */
  async #claimOf(machineId: string, { claim, witnessSiteId }: LeaseEnd): Promise<Claim> {
    const { book } = this.#o;
    if (!witnessSiteId) return claim;
    await book.settle(machineId);
    return wordOf(book.standing(machineId), book.siteId, claim)?.claim ?? claim;
  }

  async #keepHeard(machineId: string, end: LeaseEnd, hasEnded: boolean): Promise<void> {
    const { book } = this.#o;
    const now = book.records.get(machineId);
    if (!now?.toEnd) return;
    const left = now.toEnd.filter((one) => JSON.stringify(one) !== JSON.stringify(end));
    const { toEnd: _ends, ...others } = now;
    const after = { ...others, ...(left.length > 0 ? { toEnd: left } : {}) };
    // Leases of the same sites may have begun anew meanwhile.
    const isOwed = left.length < now.toEnd.length;
    const heard = hasEnded && isOwed ? this.#endedAtBoth(after, end) : after;
    this.left(machineId, heard);
    await book.keep(heard);
  }

  /** Who might have asked the witness does not any more: in the place of who holds the machine it hears that those leases have ended. */
  #endedAtBoth(record: VoteRecord, { siteId, claim: ended, begunAtMs, witnessSiteId }: LeaseEnd): VoteRecord {
    const { book } = this.#o;
    const { machineId } = record;
    const claim = wordOf(book.standing(machineId), book.siteId, ended)?.claim;
    if (!witnessSiteId || !claim) return record;
    const parties = { witnessSiteId, siteIds: [book.siteId, siteId] };
    const { toHold, toEnd, ...others } = record;
    const { toTell: _held, told: _told, ...bare } = others;
    const left = withoutHold(toHold, parties);
    // The other one may have the machine at home by now, and lent by this site: those are not the leases that have ended.
    const isOver = isSameParties(record, parties) && [undefined, begunAtMs].includes(record.begunAtMs);
    return {
      ...(isOver ? { ...bare, ended: true } : others),
      ...(left ? { toHold: left } : {}),
      toEnd: withEnd(toEnd, { siteId: witnessSiteId, claim, begunAtMs }),
    };
  }

  /** Who holds it: its witness. What was held once, and was given up or lost since, is told to one that has heard it no more. */
  async #tellHeld(record: VoteRecord, claim: Claim, signal: AbortSignal): Promise<void> {
    const { book } = this.#o;
    const { machineId, toTell } = record;
    await book.settle(machineId);
    // It runs by them again since.
    if (this.#isLeased(machineId, record)) return;
    const tenure = book.standing(machineId);
    if (!toTell && (tenure?.state !== 'holds' || compareClaims(tenure.claim, claim) !== 0)) return;
    const heard = await this.#said(record, claim, signal);
    if (!heard) this.#waiting.held.add(machineId);
    else await book.alone(machineId, () => this.#keepTold(machineId, claim, heard));
  }

  /** That a witness does not count what it is told may last, and people can do something about it. */
  async #said(
    parties: LeaseParties,
    owed: Claim | undefined,
    signal: AbortSignal,
  ): Promise<Claim | undefined> {
    const { machineId } = parties;
    const { alerts, book } = this.#o;
    try {
      return await this.#words.say(parties, owed, signal);
    } catch (error) {
      if (isFailure(error, 'LEASE_VOTE_STANDS') && !signal.aborted) {
        alerts.raise(`lease-hold:${machineId}`, 'warning', error, machineId);
        this.left(machineId, book.records.get(machineId) ?? {});
      }
      throw error;
    }
  }

  async #keepTold(machineId: string, claim: Claim, heard: Claim): Promise<void> {
    const { book } = this.#o;
    const now = book.records.get(machineId);
    if (!now?.toTell) return;
    const { toTell, ...others } = now;
    // What came to be held meanwhile is still to be told.
    if (compareClaims(toTell, claim) !== 0 && compareClaims(toTell, heard) > 0) return;
    this.left(machineId, others);
    await book.keep({ ...others, told: toTell });
  }

  /** As `#tellHeld`, to the witness of earlier leases. */
  async #tellHold(record: VoteRecord, hold: LeaseHold, signal: AbortSignal): Promise<void> {
    const { book } = this.#o;
    const { machineId } = record;
    try {
      const heard = await this.#said({ ...record, ...hold }, hold.claim, signal);
      // One that an older program has left, of a machine that is here no more: nobody knows what there would be to say.
      const isLost = !hold.claim && !book.standing(machineId);
      if (!heard && !isLost) {
        this.#waiting.hold.add(machineId);
        return;
      }
    } catch (error) {
      // Those leases are no more: this is told to nobody but a witness that is still paired.
      if (!isFailure(error, 'SITE_PEER_UNKNOWN')) throw error;
    }
    await book.alone(machineId, async () => {
      const now = book.records.get(machineId);
      if (!now) return;
      const { toHold, ...others } = now;
      const left = withoutHold(toHold, hold);
      const after = { ...others, ...(left ? { toHold: left } : {}) };
      this.left(machineId, after);
      await book.keep(after);
    });
  }
}

/**
 * Nobody who would hear of an end: it counts other sites by now, whose leases those are no more, or it is paired no more. One that
 * still counts those of earlier leases (LEASE_NOT_YOURS) has to hear of it when a person has made it forget them.
 */
function isNobodyLeft(error: unknown): boolean {
  return isFailure(error, 'LEASE_PARTIES_DIFFER', 'SITE_PEER_UNKNOWN');
}
