import type { Clock } from '../../lib/clock.ts';
import { cancelled } from '../../lib/clock.ts';

/**
 * A bell that one worker waits for. Rung while nobody waits it is remembered, once: a worker that looks at its work
 * after each ring misses nothing.
 */
export class Wakeup {
  readonly #clock: Clock;
  #rung = false;
  #answer: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  ring(): void {
    this.#rung = true;
    this.#answer?.();
  }

  /** Resolves at the next ring, or after `limitMs` at the latest; rejects with CANCELLED when `signal` is aborted. */
  async wait(limitMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw cancelled(signal);
    if (!this.#rung) await this.#pause(limitMs, signal);
    this.#rung = false;
  }

  #pause(limitMs: number, signal: AbortSignal): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const end = (settle: () => void): void => {
        cancelTimer();
        signal.removeEventListener('abort', onAbort);
        this.#answer = undefined;
        settle();
      };
      const onAbort = (): void => end(() => reject(cancelled(signal)));
      const cancelTimer = Number.isFinite(limitMs)
        ? this.#clock.after(limitMs, () => end(resolve))
        : () => undefined;
      this.#answer = () => end(resolve);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}
