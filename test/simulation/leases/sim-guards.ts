import {
  type GuardedGuest,
  HYPERVISOR_ERRORS,
  type LeaseGuard,
  type LeaseGuards,
} from '../../../src/hypervisor/index.ts';
import type { Clock } from '../../../src/lib/clock.ts';
import { Failure } from '../../../src/lib/errors.ts';
import { Mutex } from '../../../src/lib/mutex.ts';
import type { SimRandom } from '../sim-random.ts';
import type { SimProcess } from '../turns.ts';
import type { SimHost } from './sim-host.ts';

/** What a guard does to its guest: `FakeMachine` can do that. */
export interface StoppableGuest {
  readonly isAlive: boolean;
  readonly isPaused: boolean;
  pause(): void;
  resume(): void;
  kill(): void;
  onGone(listener: () => void): () => void;
}

/** As the real guard has it. */
const PATIENCE_MS = 5_000;
const LOOK_EVERY_MS = 500;
const STOP_LIMIT_MS = 1_000;

/** The guards of one host, for all processes of its site: they outlive those. */
export class GuardsOfHost {
  readonly host: SimHost;
  readonly random: SimRandom;
  /** The guest that runs in a directory, if one does. */
  readonly guestOf: (runDirectory: string) => StoppableGuest | undefined;
  readonly #guards = new Map<string, SimGuard>();

  constructor(o: {
    readonly host: SimHost;
    readonly random: SimRandom;
    readonly guestOf: (runDirectory: string) => StoppableGuest | undefined;
  }) {
    this.host = o.host;
    this.random = o.random;
    this.guestOf = o.guestOf;
  }

  get(runDirectory: string): SimGuard | undefined {
    const guard = this.#guards.get(runDirectory);
    return guard?.process.isAlive ? guard : undefined;
  }

  /** Throws if there is no guest to guard. */
  begin(runDirectory: string, patienceMs: number): SimGuard {
    const guest = this.guestOf(runDirectory);
    if (!guest?.isAlive) throw unguarded('there is no such machine');
    const guard = new SimGuard(this, runDirectory, guest, patienceMs);
    this.#guards.set(runDirectory, guard);
    return guard;
  }

  /** As a process of the site sees them. */
  seenBy(process: SimProcess): LeaseGuards {
    return new SimLeaseGuards(this, process);
  }
}

/**
 * A lease guard without QEMU, as a process of its own: it stops its guest when its time is over, again if somebody continues it, and
 * continues it with the next lease. Now and then it takes a while to stop it, or has to cut its power.
 */
class SimGuard {
  readonly process: SimProcess;
  readonly #guards: GuardsOfHost;
  readonly #runDirectory: string;
  readonly #guest: StoppableGuest;
  readonly #clock: Clock;
  readonly #acting = new Mutex();
  #untilMs: number;

  constructor(guards: GuardsOfHost, runDirectory: string, guest: StoppableGuest, patienceMs: number) {
    this.#guards = guards;
    this.#runDirectory = runDirectory;
    this.#guest = guest;
    this.process = guards.host.process('G');
    this.#clock = guards.host.clocksOf(this.process).bootClock;
    this.#untilMs = this.#clock.monotonicMs() + patienceMs;
    const forget = guest.onGone(() => this.process.kill());
    this.process.onEnd(forget);
    if (this.#isOver) void this.#acting.run(() => this.#settle());
    this.#keepLooking();
  }

  #keepLooking(): void {
    const leftMs = this.#untilMs - this.#clock.monotonicMs();
    this.#clock.after(leftMs > 0 ? Math.min(leftMs, LOOK_EVERY_MS) : LOOK_EVERY_MS, () => {
      if (this.#isOver && !this.#guest.isPaused) void this.#acting.run(() => this.#settle());
      this.#keepLooking();
    });
  }

  get #isOver(): boolean {
    return this.#clock.monotonicMs() >= this.#untilMs;
  }

  async #settle(): Promise<GuardedGuest> {
    const { random, host } = this.#guards;
    if (!this.#isOver) {
      if (!host.marks.has(this.#runDirectory)) return 'runs';
      this.#guest.resume();
      host.marks.delete(this.#runDirectory);
      return 'runs';
    }
    host.marks.add(this.#runDirectory);
    if (!this.#guest.isPaused && random.chance(0.1)) await this.#struggle(random);
    if (this.#guest.isAlive) this.#guest.pause();
    return 'stopped';
  }

  /** A guest that does not heed its monitor at once, or not at all. */
  async #struggle(random: SimRandom): Promise<void> {
    const heeds = random.chance(0.8);
    await this.process.sleep(heeds ? random.between(1, STOP_LIMIT_MS - 50) : STOP_LIMIT_MS);
    if (!heeds) this.#guest.kill();
  }

  lend(untilMs: number): Promise<GuardedGuest> {
    return this.#acting.run(() => {
      this.#untilMs = untilMs;
      return this.#settle();
    });
  }

  /** It ends when it has answered. */
  async dismiss(): Promise<void> {
    await this.lend(Number.POSITIVE_INFINITY);
    this.process.clock.after(1, () => this.process.kill());
  }
}

class SimLeaseGuards implements LeaseGuards {
  readonly #guards: GuardsOfHost;
  readonly #process: SimProcess;

  constructor(guards: GuardsOfHost, process: SimProcess) {
    this.#guards = guards;
    this.#process = process;
  }

  async expect(runDirectory: string): Promise<void> {
    await this.#process.turn('expect', () => this.#guards.host.marks.add(runDirectory));
  }

  async of(runDirectory: string, { goesOn = false } = {}): Promise<LeaseGuard> {
    const there = await this.#process.turn('guard', () => this.#guards.get(runDirectory));
    if (there) return new SimConnection(there, this.#process);
    await this.#process.sleep(this.#guards.random.between(20, 300));
    const begun = await this.#process.turn('guard begins', () => {
      return this.#guards.get(runDirectory) ?? this.#guards.begin(runDirectory, goesOn ? 0 : PATIENCE_MS);
    });
    return new SimConnection(begun, this.#process);
  }

  async release(runDirectory: string): Promise<void> {
    const there = await this.#process.turn('guard', () => this.#guards.get(runDirectory));
    if (there) return new SimConnection(there, this.#process).dismiss();
    const isMarked = await this.#process.turn('mark', () => this.#guards.host.marks.has(runDirectory));
    if (isMarked) await (await this.of(runDirectory)).dismiss();
  }
}

class SimConnection implements LeaseGuard {
  readonly gone: Promise<void>;
  readonly #guard: SimGuard;
  readonly #process: SimProcess;
  #end: () => void = () => undefined;

  constructor(guard: SimGuard, process: SimProcess) {
    this.#guard = guard;
    this.#process = process;
    this.gone = new Promise((resolve) => {
      this.#end = resolve;
    });
    guard.process.onEnd(this.#end);
    if (!guard.process.isAlive) this.#end();
  }

  lend(untilMs: number): Promise<GuardedGuest> {
    return this.#ask('lend', () => this.#guard.lend(untilMs));
  }

  async dismiss(): Promise<void> {
    await this.#ask('dismiss', () => this.#guard.dismiss());
    this.disconnect();
  }

  disconnect(): void {
    this.#end();
  }

  /** Sent, done by the guard, heard; or the guard has gone. */
  async #ask<T>(what: string, work: () => Promise<T>): Promise<T> {
    await this.#process.turn(what, () => undefined);
    if (!this.#guard.process.isAlive) throw unguarded('it has ended');
    const ended = Promise.withResolvers<never>();
    const forget = this.#guard.process.onEnd(() => ended.reject(unguarded('it has ended')));
    try {
      const answer = await Promise.race([work(), ended.promise]);
      return await this.#process.turn(`answer to ${what}`, () => answer);
    } finally {
      forget();
    }
  }
}

function unguarded(reason: string): Failure {
  const said = `the guard of the machine’s lease is not there: ${reason}`;
  return new Failure('MACHINE_LEASE_UNGUARDED', HYPERVISOR_ERRORS.MACHINE_LEASE_UNGUARDED, said);
}
