import { type Clock, sleep } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { PeerClient } from '../../peer/index.ts';
import { type Claim, compareClaims } from '../../recovery-point/index.ts';
import type { VoteRecord } from './lease-records.ts';
import { askVoter, CALL_LIMIT_MS } from './lease-wire.ts';
import type { VoteBook } from './vote-book.ts';

const TELL_AGAIN_AFTER_MS = 5_000;

export interface LeaseTellerTools {
  readonly book: VoteBook;
  readonly clock: Clock;
  readonly log: Log;
  readonly client: (siteId: string) => Pick<PeerClient, 'call'>;
  /** Makes durable that a machine is held here for good. */
  readonly holdForGood: (record: VoteRecord, claim: Claim) => Promise<void>;
}

/** Tells witnesses what they have to know, again and again until they have heard it: what this site holds, and what it has let go. */
export class LeaseTeller {
  readonly #o: LeaseTellerTools;
  readonly #stop = new AbortController();
  #telling: Promise<void> | undefined;

  constructor(o: LeaseTellerTools) {
    this.#o = o;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#telling;
  }

  /** Something is to be told, or may be. */
  tell(): void {
    this.#telling ??= this.#keepTelling().finally(() => {
      this.#telling = undefined;
    });
  }

  async #keepTelling(): Promise<void> {
    const { clock, log } = this.#o;
    const { signal } = this.#stop;
    for (;;) {
      const open = this.#untold();
      if (open.length === 0 || signal.aborted) return;
      const heard = await Promise.all(
        open.map(async (record) => {
          try {
            await this.#tellOne(record, signal);
            return true;
          } catch (error) {
            if (!signal.aborted) log.warn('lease.not-told', { machine: record.machineName, error });
            return false;
          }
        }),
      );
      if (heard.every(Boolean)) continue;
      try {
        await sleep(clock, TELL_AGAIN_AFTER_MS, signal);
      } catch {
        return; // The site closes; the next process tells.
      }
    }
  }

  #untold(): VoteRecord[] {
    const { book } = this.#o;
    return book.records
      .list()
      .filter(({ machineId, seeking, toTell }) => toTell || (seeking && !book.isSought(machineId)));
  }

  /** What an earlier process has asked for, and got, is not let go. */
  #isHeldBy(machineId: string, claim: Claim): boolean {
    const tenure = this.#o.book.standing(machineId);
    return tenure?.state === 'holds' && compareClaims(tenure.claim, claim) >= 0;
  }

  async #tellOne(
    { machineId, machineName, toTell, seeking }: VoteRecord,
    signal: AbortSignal,
  ): Promise<void> {
    const { book, client, holdForGood } = this.#o;
    const parties = book.need(machineId);
    const o = { timeoutMs: CALL_LIMIT_MS, signal };
    const witness = client(parties.witnessSiteId);
    if (!toTell && this.#isHeldBy(machineId, seeking!)) {
      await book.alone(machineId, () => holdForGood(book.need(machineId), book.overOf(machineId)));
      return;
    }
    const claim = toTell ?? seeking!;
    if (toTell) await askVoter(witness, { ...parties, machineName }, { kind: 'hold', claim }, o);
    else await witness.call('lease.let-go', { machineId, claim: { ...claim } }, o);
    await book.alone(machineId, async () => {
      const { toTell: told, seeking: sought, ...others } = book.need(machineId);
      const isTold = told && compareClaims(told, claim) === 0;
      const isLetGo = sought && compareClaims(sought, claim) === 0 && !book.isSought(machineId);
      await book.records.store({
        ...others,
        ...(told && !isTold ? { toTell: told } : {}),
        ...(isTold ? { told } : {}),
        ...(sought && !isLetGo ? { seeking: sought } : {}),
      });
    });
  }
}
