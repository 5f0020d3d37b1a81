import { sleep, throwIfAborted } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { PeerClient } from '../../peer/index.ts';
import { type Claim, type LeaseAsk, lenderShareMs } from '../../recovery-point/index.ts';
import { controlFailure } from '../errors.ts';
import type { VoteRecord } from './lease-records.ts';
import { askVoter, CALL_LIMIT_MS, type WireAnswer } from './lease-wire.ts';
import type { HearClaim, VoteBook } from './vote-book.ts';

/** Two answers about one lease may differ by this much. */
const ROUNDING_MS = 250;
const ASK_AGAIN_AFTER_MS = 500;

export interface LeaseSeekerTools {
  readonly book: VoteBook;
  readonly log: Log;
  readonly client: (siteId: string) => Pick<PeerClient, 'call'>;
  readonly hear: HearClaim;
  /** How long something that this site itself has lent of a machine may still run. */
  readonly lentForMs: (machineId: string, record: VoteRecord) => number;
  /** What was asked for is not wanted any more. */
  readonly letGo: (machineId: string) => void;
}

/** How this site comes by the right to run a machine without a person's word. */
export class LeaseSeeker {
  readonly #o: LeaseSeekerTools;

  constructor(o: LeaseSeekerTools) {
    this.#o = o;
  }

  /** As `LeaseVotes.seek`. */
  async seek(machineId: string, signal: AbortSignal): Promise<Claim> {
    const { book, log, lentForMs, letGo } = this.#o;
    const { machineName, leaseMs } = book.need(machineId);
    // Beside no answer of this site that lends the machine once more.
    await book.alone(machineId, async () => {
      if (book.isSought(machineId)) {
        throw controlFailure('LEASE_SOUGHT', `${machineName} is asked for already`, {
          context: { machineId },
        });
      }
      book.beginSeeking(machineId);
    });
    try {
      const own = lentForMs(machineId, book.need(machineId));
      if (own > 0) await sleep(book.bootClock, own, signal);
      const deadlineMs = book.nowMs() + lenderShareMs(leaseMs) + CALL_LIMIT_MS;
      await this.#claimAnew(machineId);
      return await this.#voted(machineId, deadlineMs, signal);
    } catch (error) {
      log.warn('lease.not-voted', { machine: machineName, error });
      letGo(machineId);
      throw error;
    }
  }

  /** As `LeaseVotes.confirm`. */
  async confirm(machineId: string, claim: Claim, signal: AbortSignal): Promise<void> {
    const { book, hear } = this.#o;
    const record = book.need(machineId);
    const deadlineMs = book.nowMs() + CALL_LIMIT_MS;
    for (;;) {
      const answer = await this.#ask(record, { kind: 'hold', claim }, signal);
      if (answer?.granted) return;
      if (answer?.isHeld) {
        await hear(machineId, answer.entitled);
        throw heldElsewhere(machineId, answer.entitled);
      }
      // Else it stands by a vote of this site that was not made use of, and of which it is still to hear so.
      if (book.nowMs() >= deadlineMs)
        throw answer ? heldElsewhere(machineId, answer.entitled) : silent(machineId);
      await sleep(book.bootClock, ASK_AGAIN_AFTER_MS, signal);
    }
  }

  /** A claim above all that is known, durable before anybody is asked: what was let go before may still be on its way. */
  #claimAnew(machineId: string): Promise<VoteRecord> {
    const { book } = this.#o;
    return book.alone(machineId, async () => {
      const record = book.need(machineId);
      const known = [book.overOf(machineId), record.vote.seen, ...(record.seeking ? [record.seeking] : [])];
      const epoch = Math.max(...known.map((claim) => claim.epoch)) + 1;
      return book.records.store({ ...record, seeking: { epoch, siteId: book.siteId } });
    });
  }

  async #voted(machineId: string, deadlineMs: number, signal: AbortSignal): Promise<Claim> {
    const { book } = this.#o;
    let lentUntilMs = Number.POSITIVE_INFINITY;
    for (;;) {
      const { claim, answer } = await this.#askForVote(machineId, signal);
      throwIfAborted(signal);
      if (answer?.granted) return claim;
      const isOver = book.nowMs() >= deadlineMs;
      const untilMs = answer?.why === 'lent' ? book.nowMs() + answer.waitMs : Number.POSITIVE_INFINITY;
      // Lent anew since it was asked before: whoever runs the machine is alive.
      const isRenewed = untilMs < Number.POSITIVE_INFINITY && untilMs > lentUntilMs + ROUNDING_MS;
      lentUntilMs = untilMs;
      if (answer && (answer.why === 'superseded' || isRenewed || (answer.why === 'lent' && isOver))) {
        if (answer.why !== 'lent') throw heldElsewhere(machineId, answer.entitled);
        const said = 'the witness lends the machine to the site that runs it: it is not down';
        throw controlFailure('LEASE_HELD', said, { context: { machineId, siteId: answer.entitled.siteId } });
      }
      if (!answer && isOver) throw silent(machineId);
      await sleep(book.bootClock, ASK_AGAIN_AFTER_MS, signal);
    }
  }

  /** Asks the witness once. Of a claim that it has seen before, a higher one is asked for next. */
  async #askForVote(
    machineId: string,
    signal: AbortSignal,
  ): Promise<{ readonly claim: Claim; readonly answer: WireAnswer | undefined }> {
    const { book } = this.#o;
    const over = book.overOf(machineId);
    let record = book.need(machineId);
    // The other site has come by that epoch meanwhile.
    if (record.seeking!.epoch <= over.epoch) record = await this.#claimAnew(machineId);
    const claim = record.seeking!;
    const answer = await this.#ask(record, { kind: 'vote', claim, over }, signal);
    if (answer && !answer.granted && answer.why === 'spent') {
      const higher = { epoch: Math.max(answer.seen.epoch, claim.epoch) + 1, siteId: book.siteId };
      await book.alone(machineId, () => book.records.store({ ...book.need(machineId), seeking: higher }));
    }
    return { claim, answer };
  }

  /** Undefined: the witness does not answer. */
  async #ask(record: VoteRecord, ask: LeaseAsk, signal: AbortSignal): Promise<WireAnswer | undefined> {
    try {
      const o = { timeoutMs: CALL_LIMIT_MS, signal };
      return await askVoter(this.#o.client(record.witnessSiteId), record, ask, o);
    } catch (error) {
      throwIfAborted(signal);
      if (!isFailure(error) || error.code.startsWith('LEASE_')) throw error;
      return undefined;
    }
  }
}

function heldElsewhere(machineId: string, { epoch, siteId }: Claim) {
  const said = `the machine is held by site ${siteId}, in epoch ${epoch}`;
  return controlFailure('LEASE_HELD', said, { context: { machineId, siteId } });
}

function silent(machineId: string) {
  return controlFailure('LEASE_WITNESS_SILENT', 'the witness does not answer', { context: { machineId } });
}
