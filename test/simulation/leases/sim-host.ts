import type { Clock } from '../../../src/lib/clock.ts';
import { ImageLocks } from '../../support/fake-images.ts';
import { DiskFaults } from '../faults.ts';
import { chooseCutMode, SimDisk } from '../sim-disk.ts';
import type { SimRandom } from '../sim-random.ts';
import { SimProcess, type Turns } from '../turns.ts';

/** What runs on a host and is ended by a power cut, or stands still while the host sleeps. */
export interface OnHost {
  kill(): void;
}

/**
 * A host: its disk, its power, its processes and its clocks. Its time runs a little faster or slower than that of the world; the boot
 * clock begins anew with its power and counts sleep, the monotonic clock of a process does not.
 */
export class SimHost {
  readonly name: string;
  disk = new SimDisk();
  readonly faults = new DiskFaults();
  readonly locks = new ImageLocks();
  readonly #turns: Turns;
  /** So many of its milliseconds pass in one of the world. */
  readonly #rate: number;
  readonly #processes = new Set<SimProcess>();
  readonly #guests = new Set<OnHost>();
  #bootedAtMs = 0;
  #sleepsSinceMs: number | undefined;
  #sleptMs = 0;
  #wallSkewMs = 0;
  /** By the time of the world: when it has slept last. */
  wokeAtMs = Number.NEGATIVE_INFINITY;
  isOn = true;
  /** What is kept below `/run`, and lost with the power or not: signs that a guest waits for a lease. */
  readonly marks = new Set<string>();

  constructor(o: { readonly name: string; readonly turns: Turns; readonly rate: number }) {
    this.name = o.name;
    this.#turns = o.turns;
    this.#rate = o.rate;
  }

  get isAsleep(): boolean {
    return this.#sleepsSinceMs !== undefined;
  }

  process(name: string): SimProcess {
    const process = new SimProcess(this.#turns, name);
    this.#processes.add(process);
    process.onEnd(() => this.#processes.delete(process));
    if (this.isAsleep) this.#turns.hold(process);
    return process;
  }

  /** Ends with the power of the host, unless it has ended before. */
  carries(guest: OnHost): () => void {
    this.#guests.add(guest);
    return () => this.#guests.delete(guest);
  }

  /** The clocks as a process reads them. Both wait by time in which the host is awake. */
  clocksOf(process: SimProcess): { readonly clock: Clock; readonly bootClock: Clock } {
    const after: Clock['after'] = (delayMs, fn) => process.clock.after(Math.max(0, delayMs) / this.#rate, fn);
    const wallMs = () => process.clock.wallMs() + this.#wallSkewMs;
    const sinceBootMs = () => (this.#turns.nowMs - this.#bootedAtMs) * this.#rate;
    return {
      clock: { wallMs, after, monotonicMs: () => sinceBootMs() - this.#sleptMs * this.#rate },
      bootClock: { wallMs, after, monotonicMs: sinceBootMs },
    };
  }

  jumpWall(byMs: number): void {
    this.#wallSkewMs += byMs;
  }

  /** Everything on it stands still, guests too. */
  sleep(): void {
    this.#sleepsSinceMs ??= this.#turns.nowMs;
    for (const process of this.#processes) this.#turns.hold(process);
  }

  wake(): void {
    if (this.#sleepsSinceMs === undefined) return;
    this.#sleptMs += this.#turns.nowMs - this.#sleepsSinceMs;
    this.#sleepsSinceMs = undefined;
    this.wokeAtMs = this.#turns.nowMs;
    for (const process of this.#processes) this.#turns.letGo(process, { slept: true });
  }

  /** Whatever runs ends at once; what was not synced is lost, torn or kept. */
  cutPower(random: SimRandom): void {
    for (const guest of [...this.#guests]) guest.kill();
    for (const process of [...this.#processes]) {
      process.kill();
      this.locks.releaseAll(process);
    }
    for (const mark of [...this.marks]) if (random.chance(0.5)) this.marks.delete(mark);
    this.disk.crash(random, chooseCutMode(random));
    this.#sleepsSinceMs = undefined;
    this.isOn = false;
  }

  giveBackPower(): void {
    if (this.isOn) return;
    this.isOn = true;
    this.#bootedAtMs = this.#turns.nowMs;
    this.#sleptMs = 0;
  }
}
