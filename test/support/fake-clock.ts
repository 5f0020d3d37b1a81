import type { Clock } from '../../src/lib/clock.ts';

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly fn: () => void;
}

/**
 * A clock turned by hand. Nothing happens until a test turns it; timers then fire in the order of their time, those
 * of the same time in the order in which they were set.
 */
export class FakeClock implements Clock {
  #wallMs: number;
  #monotonicMs = 0;
  #orders = 0;
  readonly #timers = new Set<Timer>();

  constructor(wallMs: number = Date.UTC(2025, 0, 15)) {
    this.#wallMs = wallMs;
  }

  wallMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  after(delayMs: number, fn: () => void): () => void {
    const timer = { atMs: this.#monotonicMs + Math.max(0, delayMs), order: this.#orders++, fn };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Timers that wait: 0 at the end of a test that forgot none. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Moves the wall clock alone, as a person or a time server does. */
  jumpWall(byMs: number): void {
    this.#wallMs += byMs;
  }

  /** Lets `ms` pass and fires what falls due, all in one go: promises get no turn between. */
  advance(ms: number): void {
    const endMs = this.#monotonicMs + ms;
    for (let timer = this.#nextBy(endMs); timer; timer = this.#nextBy(endMs)) this.#fire(timer);
    this.#passTo(endMs);
  }

  /** Lets `ms` pass; after each timer, promises and I/O that are ready get a turn. */
  async turn(ms: number): Promise<void> {
    const endMs = this.#monotonicMs + ms;
    await settle();
    for (let timer = this.#nextBy(endMs); timer; timer = this.#nextBy(endMs)) {
      this.#fire(timer);
      await settle();
    }
    this.#passTo(endMs);
    await settle();
  }

  #nextBy(endMs: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.atMs > endMs) continue;
      if (!next || timer.atMs < next.atMs || (timer.atMs === next.atMs && timer.order < next.order))
        next = timer;
    }
    return next;
  }

  #fire(timer: Timer): void {
    this.#timers.delete(timer);
    this.#passTo(Math.max(timer.atMs, this.#monotonicMs));
    timer.fn();
  }

  #passTo(monotonicMs: number): void {
    this.#wallMs += monotonicMs - this.#monotonicMs;
    this.#monotonicMs = monotonicMs;
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
