import type { Clock } from '../lib/clock.ts';

/**
 * Calls `onSilence` once when `limitMs` have passed without `fed()`. Being fed costs a clock reading, not a timer,
 * so that it can be done for every chunk of a stream.
 */
export class Watchdog {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #onSilence: () => void;
  #fedAtMs = 0;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, limitMs: number, onSilence: () => void) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#onSilence = onSilence;
  }

  start(): void {
    this.fed();
    if (this.#cancel === undefined) this.#arm(this.#limitMs);
  }

  fed(): void {
    this.#fedAtMs = this.#clock.monotonicMs();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #arm(delayMs: number): void {
    this.#cancel = this.#clock.after(delayMs, () => {
      const leftMs = this.#fedAtMs + this.#limitMs - this.#clock.monotonicMs();
      if (leftMs > 0) return this.#arm(Math.ceil(leftMs));
      this.#cancel = undefined;
      this.#onSilence();
    });
  }
}
