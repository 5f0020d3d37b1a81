import { Failure, messageOf } from '../../src/lib/errors.ts';
import { DISK_ACTS, type DiskFaults } from './faults.ts';
import { SimRandom } from './sim-random.ts';
import { SimProcess, Turns } from './turns.ts';
import { Violation } from './violation.ts';

/** What a life of some sites was and did; `violation` is what it found. */
export interface LifeReport {
  readonly seed: number;
  readonly turns: number;
  /** Of the world, in milliseconds. */
  readonly lastedMs: number;
  readonly trace: string;
  readonly events: Readonly<Record<string, number>>;
  /** What was done and refused: acts by their names, refusals by the codes of their failures. */
  readonly acts: Readonly<Record<string, number>>;
  readonly violation: string | undefined;
  readonly recent: readonly string[];
}

/** How often things happen in one life: as usual, less, more, or never. */
export function chooseRates<Event extends string>(
  random: SimRandom,
  usual: Readonly<Record<Event, number>>,
): Record<Event, number> {
  const events = Object.entries(usual) as [Event, number][];
  return Object.fromEntries(
    events.map(([event, rate]) => [event, rate * random.pick([0, 0.5, 1, 3])]),
  ) as Record<Event, number>;
}

/** One life by one seed: its chance, its turns, what has happened so far, and the first thing that must not. */
export class Life {
  readonly chance: SimRandom;
  readonly turns: Turns;
  /** Ends nothing, and is ended by nothing: what comes later is waited for by its clock. */
  readonly fate: SimProcess;
  readonly #seed: number;
  readonly #never: ReadonlySet<string>;
  readonly #events: Record<string, number> = {};
  readonly #acts: Record<string, number> = {};
  #trouble: Error | undefined;

  /** `never`: codes of failures to which none of its faults may ever lead. */
  constructor(seed: number, never: ReadonlySet<string>) {
    this.#seed = seed;
    this.#never = never;
    this.chance = new SimRandom(seed, 1);
    this.turns = new Turns(new SimRandom(seed, 3));
    this.fate = new SimProcess(this.turns, 'fate');
  }

  get isTroubled(): boolean {
    return this.#trouble !== undefined;
  }

  /** Takes one turn. Throws what must not have happened. */
  async next(): Promise<void> {
    await this.turns.next();
    if (this.#trouble) throw this.#trouble;
  }

  happens(event: string, to = ''): void {
    this.#events[event] = (this.#events[event] ?? 0) + 1;
    this.turns.note(`${event} ${to}`.trimEnd());
  }

  count(what: string): void {
    this.#acts[what] = (this.#acts[what] ?? 0) + 1;
  }

  /** Something failed, for this life to judge. */
  troubled(where: string, error: unknown): void {
    if (error instanceof Violation) this.#trouble ??= error;
    else if (!(error instanceof Failure))
      this.#trouble ??= new Violation(`${where}: ${error instanceof Error ? error.stack : String(error)}`);
    else if (this.#never.has(error.code))
      this.#trouble ??= new Violation(`${where}: ${error.code}: ${error.message}`);
    else {
      this.turns.note(`${where}: ${error.code} ${messageOf(error)}`);
      this.count(error.code);
    }
  }

  /** Looks whether a promise was kept. */
  async judged(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.troubled('promise', error);
    }
  }

  /** An act of somebody; that it fails is no surprise. */
  async act(said: string, work: () => Promise<void>, counted = said): Promise<void> {
    this.turns.note(said);
    try {
      await work();
      this.count(counted);
    } catch (error) {
      this.troubled(said, error);
    }
  }

  later(leastMs: number, mostMs: number, act: () => void): void {
    this.fate.clock.after(this.chance.between(leastMs, mostMs), act);
  }

  /** Some call to a disk fails soon, once or until it is healed. */
  breakDisk(faults: DiskFaults): void {
    const { chance } = this;
    faults.arm({
      act: chance.chance(0.4) ? chance.pick(['sync', 'syncDirectory', 'rename']) : chance.pick(DISK_ACTS),
      system: chance.pick(['EIO', 'EIO', 'ENOSPC']),
      after: chance.between(1, 12),
      forever: chance.chance(0.2),
    });
  }

  /** Until nothing is found that has not come to rest. Throws if that takes more turns than `turnsMax`. */
  async untilRest(
    turnsMax: number,
    next: () => Promise<void>,
    unrestNow: () => Promise<readonly string[]> | readonly string[],
  ): Promise<void> {
    const end = this.turns.steps + turnsMax;
    let unrest: readonly string[] = [];
    while (this.turns.steps < end) {
      await next();
      if (this.turns.steps % 50 !== 0) continue;
      unrest = await unrestNow();
      if (unrest.length === 0) return;
    }
    throw new Violation(`no rest after ${turnsMax} turns without faults: ${unrest.join('; ')}`);
  }

  /** Lives it, and tells what it was. */
  async lived(work: () => Promise<void>): Promise<LifeReport> {
    let violation: string | undefined;
    try {
      await work();
    } catch (error) {
      violation = error instanceof Violation ? error.message : String((error as Error).stack ?? error);
    }
    const { steps, nowMs, recent } = this.turns;
    return {
      ...{ seed: this.#seed, turns: steps, lastedMs: nowMs, violation, recent },
      ...{ trace: this.turns.traceHash(), events: this.#events, acts: this.#acts },
    };
  }
}
