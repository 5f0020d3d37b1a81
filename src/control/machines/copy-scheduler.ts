import type { ReplicationView } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import {
  type DueCopy,
  type Instant,
  Schedule,
  type ScheduleState,
  type Transfer,
  type Trigger,
  type Zones,
} from '../../recovery-point/index.ts';
import type { Protection } from '../../replication/index.ts';

type Plan = Pick<Protection, 'schedules' | 'blackouts'>;

/** What the scheduler asks of the machine that it schedules. */
interface Scheduled {
  readonly protection: () => Plan | null;
  /** When the newest copy was made, on the wall clock; undefined if there is none or nobody knows. */
  readonly lastCutAtMs: () => number | undefined;
  readonly hasCopy: () => boolean;
  readonly isAcknowledged: () => boolean;
}

/** A copy that is owed and could not be made is tried again after this. */
const AGAIN_MS = 5_000;

/** Keeps the state of one machine's schedule between decisions, which are all made by `Schedule`. */
export class CopyScheduler {
  readonly #clock: Clock;
  readonly #zones: Zones;
  readonly #machine: Scheduled;
  /** The schedule of the present policy; made anew when that changes. */
  #schedule: { readonly of: Plan | null; readonly schedule: Schedule } | undefined;
  #state: ScheduleState | undefined;
  #lastTransfer: Transfer | undefined;
  /** What was owed when copies were last counted as made. */
  #owedBefore: ScheduleState['owed'] = {};

  constructor(o: { clock: Clock; zones: Zones; machine: Scheduled }) {
    this.#clock = o.clock;
    this.#zones = o.zones;
    this.#machine = o.machine;
  }

  /** The next copy and when it is due, on the monotonic clock. */
  next(): DueCopy | undefined {
    return this.#scheduleNow().next(this.#looked(), this.#now, {
      hasCopy: this.#machine.hasCopy(),
      isAcknowledged: this.#machine.isAcknowledged(),
      lastTransfer: this.#lastTransfer,
    });
  }

  /** How long `next` may go unasked when nothing happens. */
  get patienceMs(): number {
    const now = this.#now;
    return this.#scheduleNow().lookAgainAtMs(now) - now.monotonicMs;
  }

  /** Counts a copy that was due as made, or passed over. */
  made(copyType: string): void {
    const state = this.#looked();
    this.#owedBefore = state.owed;
    this.#state = this.#scheduleNow().made(state, copyType, this.#clock.monotonicMs());
  }

  /**
   * The copy just counted as made could not be made. One that a fixed time or an event asked for is tried again after a
   * while; an interval comes again by itself.
   */
  postpone(copyType: string): void {
    const owed = this.#owedBefore[copyType];
    if (!owed) return;
    const sinceMs = this.#clock.monotonicMs() + AGAIN_MS;
    const state = this.#looked();
    this.#state = { ...state, owed: { ...state.owed, [copyType]: { ...owed, sinceMs } } };
  }

  /** Something that a copy may be wanted for has happened. Returns the copy types that are due for it. */
  happened(isMeant: (trigger: Trigger, copyType: string) => boolean): readonly string[] {
    const schedule = this.#scheduleNow();
    const types = schedule.typesWith(isMeant);
    for (const copyType of types) {
      this.#state = schedule.event(this.#looked(), copyType, this.#clock.monotonicMs());
    }
    return types;
  }

  /** Somebody asks for one copy of a type, which may have no schedule. */
  ask(copyType: string): void {
    this.#state = this.#scheduleNow().event(this.#looked(), copyType, this.#clock.monotonicMs(), true);
  }

  /**
   * What a copy that has been acknowledged tells of change rate and link. Of an incremental one alone: the first one, before
   * which there is none, says nothing of those that follow.
   */
  learn(o: {
    bytes: number;
    tookMs: number;
    previousCutAtMs: number | undefined;
    cutAtMs: number | undefined;
  }): void {
    const { bytes, tookMs, previousCutAtMs, cutAtMs } = o;
    if (previousCutAtMs === undefined || cutAtMs === undefined) return;
    this.#lastTransfer = { tookMs, bytes, coversMs: Math.max(1, cutAtMs - previousCutAtMs) };
  }

  get #now(): Instant {
    return { wallMs: this.#clock.wallMs(), monotonicMs: this.#clock.monotonicMs() };
  }

  #scheduleNow(): Schedule {
    const protection = this.#machine.protection();
    if (this.#schedule && this.#schedule.of === protection) return this.#schedule.schedule;
    const { schedules = [], blackouts } = protection ?? {};
    const schedule = Schedule.of({ schedules, ...(blackouts ? { blackouts } : {}) }, this.#zones);
    this.#schedule = { of: protection, schedule };
    return schedule;
  }

  /** What has been and what is owed, after a look at the clocks. */
  #looked(): ScheduleState {
    const schedule = this.#scheduleNow();
    this.#state = this.#state
      ? schedule.look(this.#state, this.#now)
      : schedule.begin(this.#now, this.#machine.lastCutAtMs());
    return this.#state;
  }
}

/**
 * The RPO that the schedules aim at, and the age of the newest copy that would survive the loss of this site: one that was
 * cut at `cutAtMs`, or holds all there is. Pure.
 */
export function rpoOf(
  schedules: Protection['schedules'],
  cutAtMs: number | 'now' | undefined,
  nowMs: number,
): ReplicationView['rpo'] {
  const promised = schedules.flatMap(({ triggers }) =>
    triggers.flatMap((trigger) => promisedEveryMs(trigger) ?? []),
  );
  const actualMs = cutAtMs === 'now' ? 0 : cutAtMs === undefined ? undefined : Math.max(0, nowMs - cutAtMs);
  return {
    ...(promised.length > 0 ? { targetMs: Math.min(...promised) } : {}),
    ...(actualMs === undefined ? {} : { actualMs }),
  };
}

/** How often a trigger alone makes a copy at least; undefined if it promises nothing. */
function promisedEveryMs(trigger: Trigger): number | undefined {
  if (trigger.kind === 'interval') return trigger.everyMs;
  return trigger.kind === 'variable' ? trigger.maximumMs : undefined;
}
