import { createHash } from 'node:crypto';
import type { Clock } from '../../src/lib/clock.ts';
import type { Actor } from '../support/actor.ts';
import type { SimRandom } from './sim-random.ts';

interface Waiting {
  readonly process: SimProcess;
  readonly label: string;
  /** Does the thing; with `tell` also lets its caller know. */
  readonly act: (tell: boolean) => void;
}

interface Timer {
  readonly process: SimProcess;
  atMs: number;
  readonly fn: () => void;
}

/**
 * Who goes next. Everything that takes time in the simulated world waits here for its turn; one turn is taken at a
 * time, chosen by the seed, and nothing else happens until all that followed from it has settled. Time passes by
 * turns, and leaps to the next timer when nobody waits.
 */
export class Turns {
  readonly #random: SimRandom;
  readonly #trace = createHash('sha256');
  #waiting: Waiting[] = [];
  #timers: Timer[] = [];
  #nowMs = 0;
  #wallMs = Date.UTC(2025, 0, 15);
  /** Processes that stand still, and since when. */
  readonly #held = new Map<SimProcess, number>();
  steps = 0;
  /** The last turns, for the report of a failure. */
  readonly recent: string[] = [];

  constructor(random: SimRandom) {
    this.#random = random;
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** A number that two runs of one seed share if and only if they took the same turns. */
  traceHash(): string {
    return this.#trace.copy().digest('hex').slice(0, 16);
  }

  note(text: string): void {
    this.#trace.update(text);
    this.recent.push(`${this.steps} ${Math.floor(this.#nowMs)}ms ${text}`);
    if (this.recent.length > 400) this.recent.splice(0, 200);
  }

  jumpWall(byMs: number): void {
    this.#wallMs = Math.max(1e12, this.#wallMs + byMs);
  }

  /** Takes one turn and waits until nothing more follows from it. */
  async next(): Promise<void> {
    this.steps += 1;
    this.#pass(this.#random.below(100) / 100);
    const waiting = this.#moving(this.#waiting);
    const due = this.#moving(this.#timers).filter(({ atMs }) => atMs <= this.#nowMs);
    const count = waiting.length + due.length;
    if (count === 0) {
      this.#leap();
    } else {
      const chosen = this.#random.below(count);
      if (chosen < waiting.length) {
        const next = waiting[chosen]!;
        this.#waiting.splice(this.#waiting.indexOf(next), 1);
        this.note(`${next.process.name}: ${next.label}`);
        next.act(true);
      } else {
        this.#fire(due[chosen - waiting.length]!);
      }
    }
    await settled();
  }

  /** A process stands still, as by SIGSTOP or with its host: until it is let go it takes no turn. */
  hold(process: SimProcess): void {
    if (!this.#held.has(process)) this.#held.set(process, this.#nowMs);
  }

  /** It goes on. `slept`: its timers know nothing of the time that has passed, as those of a host that was suspended. */
  letGo(process: SimProcess, { slept }: { readonly slept: boolean }): void {
    const sinceMs = this.#held.get(process);
    this.#held.delete(process);
    if (sinceMs === undefined || !slept) return;
    const byMs = this.#nowMs - sinceMs;
    for (const timer of this.#timers) if (timer.process === process) timer.atMs += byMs;
  }

  #moving<T extends { readonly process: SimProcess }>(list: readonly T[]): readonly T[] {
    return this.#held.size === 0 ? list : list.filter(({ process }) => !this.#held.has(process));
  }

  #leap(): void {
    const [first] = [...this.#moving(this.#timers)].sort((a, b) => a.atMs - b.atMs);
    if (!first) return;
    this.#pass(Math.max(0, first.atMs - this.#nowMs));
    this.#fire(first);
  }

  #fire(timer: Timer): void {
    this.#timers = this.#timers.filter((other) => other !== timer);
    this.note(`${timer.process.name}: timer`);
    timer.fn();
  }

  #pass(ms: number): void {
    this.#nowMs += ms;
    this.#wallMs += ms;
  }

  wait<T>(process: SimProcess, label: string, effect: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const act = (tell: boolean) => {
        try {
          const value = effect();
          if (tell) resolve(value);
        } catch (error) {
          if (tell) reject(error);
        }
      };
      this.#waiting.push({ process, label, act });
    });
  }

  clockOf(process: SimProcess): Clock {
    return {
      wallMs: () => Math.floor(this.#wallMs),
      monotonicMs: () => this.#nowMs,
      after: (delayMs, fn) => {
        const timer = { process, atMs: this.#nowMs + Math.max(0, delayMs), fn };
        if (process.isAlive) this.#timers.push(timer);
        return () => {
          this.#timers = this.#timers.filter((other) => other !== timer);
        };
      },
    };
  }

  /** The process has ended: of what it had asked for, some is still done, and nobody hears of it. */
  forget(process: SimProcess): void {
    this.#held.delete(process);
    const own = this.#waiting.filter((waiting) => waiting.process === process);
    this.#waiting = this.#waiting.filter((waiting) => waiting.process !== process);
    this.#timers = this.#timers.filter((timer) => timer.process !== process);
    for (const { act } of own) if (this.#random.chance(0.4)) act(false);
  }
}

/** All promises that can go on have gone on: nothing waits for a real event here. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A process of the simulated world: what it asks for after its end never happens. */
export class SimProcess implements Actor {
  readonly name: string;
  readonly clock: Clock;
  readonly #turns: Turns;
  readonly #onEnd = new Set<() => void>();
  isAlive = true;

  constructor(turns: Turns, name: string) {
    this.name = name;
    this.#turns = turns;
    this.clock = turns.clockOf(this);
  }

  turn<T>(label: string, effect: () => T): Promise<T> {
    if (this.isAlive) return this.#turns.wait(this, label, effect);
    return new Promise(() => undefined);
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.clock.after(ms, resolve);
    });
  }

  onEnd(listener: () => void): () => void {
    this.#onEnd.add(listener);
    return () => this.#onEnd.delete(listener);
  }

  /** As SIGKILL does it. */
  kill(): void {
    if (!this.isAlive) return;
    this.#turns.note(`${this.name}: killed`);
    this.isAlive = false;
    this.#turns.forget(this);
    for (const listener of [...this.#onEnd]) listener();
  }
}
