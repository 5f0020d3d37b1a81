import { type Clock, cancelled } from '../lib/clock.ts';
import { failoverFailure } from './errors.ts';

/** A failover waits no longer than this for the room that others leave. */
const ROOM_LIMIT_MS = 5_000;

interface Yielding {
  readonly controller: AbortController;
  readonly ended: Promise<void>;
}

/**
 * Failovers come before what is booted for no hurry. That gives its memory and processors back at once when a failover begins, and
 * does not begin while one is under way.
 */
export class Precedence {
  readonly #clock: Clock;
  #urgent = 0;
  readonly #yielding = new Set<Yielding>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isUrgent(): boolean {
    return this.#urgent > 0;
  }

  /** Runs what gives way, with a signal that says so. Throws FAILOVER_GAVE_WAY when it has. */
  async yielding<T>(work: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.isUrgent) throw gaveWay('a failover is under way');
    const controller = new AbortController();
    const { promise, resolve } = Promise.withResolvers<void>();
    const yielding: Yielding = { controller, ended: promise };
    this.#yielding.add(yielding);
    try {
      return await work(signal ? AbortSignal.any([signal, controller.signal]) : controller.signal);
    } catch (error) {
      if (signal?.aborted) throw cancelled(signal);
      throw controller.signal.aborted ? gaveWay('a failover began') : error;
    } finally {
      this.#yielding.delete(yielding);
      resolve();
    }
  }

  /**
   * Runs what others give way to. They are told at once; `room` resolves when they have gone, and after some seconds in any case: a
   * failover waits for nobody longer than that.
   */
  async urgently<T>(work: (room: Promise<void>) => Promise<T>): Promise<T> {
    this.#urgent += 1;
    try {
      return await work(this.#room());
    } finally {
      this.#urgent -= 1;
    }
  }

  async #room(): Promise<void> {
    const leaving = [...this.#yielding];
    if (leaving.length === 0) return;
    for (const { controller } of leaving) controller.abort();
    const late = Promise.withResolvers<void>();
    const cancelTimer = this.#clock.after(ROOM_LIMIT_MS, late.resolve);
    await Promise.race([Promise.all(leaving.map(({ ended }) => ended)), late.promise]);
    cancelTimer();
  }
}

function gaveWay(why: string) {
  return failoverFailure('FAILOVER_GAVE_WAY', `the drill gave way: ${why}`);
}
