import { type Clock, sleep } from '../../lib/clock.ts';

/** Does the same again and again, with a pause in between, until it is closed. What a round throws ends the process. */
export class Rounds {
  readonly #stop = new AbortController();
  readonly #work: Promise<void>;

  /** With `waitFirst` the first round comes after a pause too. */
  constructor(o: { clock: Clock; everyMs: number; waitFirst?: boolean; round: () => Promise<void> }) {
    this.#work = this.#go(o);
  }

  /** A round under way is waited for. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#work;
  }

  async #go(o: {
    clock: Clock;
    everyMs: number;
    waitFirst?: boolean;
    round: () => Promise<void>;
  }): Promise<void> {
    const { signal } = this.#stop;
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      if (!isFirst || !o.waitFirst) await o.round();
      try {
        await sleep(o.clock, o.everyMs, signal);
      } catch {
        return; // Closed.
      }
    }
  }
}
