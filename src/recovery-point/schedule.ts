import type { CopyPlan, Trigger } from './copy-schedule.ts';
import { FixedTimes } from './fixed-times.ts';
import { type Transfer, variableIntervalMs } from './variable-interval.ts';
import { endOfWindows } from './windows.ts';
import type { Zones } from './zones.ts';

/** The two clocks, read at one moment. */
export interface Instant {
  /** May jump. Asked only for fixed times and windows. */
  readonly wallMs: number;
  /** Never goes back. */
  readonly monotonicMs: number;
}

/** From the first instant to the last, both included. */
interface Stretch {
  readonly fromMs: number;
  readonly toMs: number;
}

/** What has been and what is owed: all that the next decision needs to know of earlier ones. */
export interface ScheduleState {
  /** When each copy type was last made (or passed over), on the monotonic clock; absent if never since the beginning. */
  readonly lastMade: Readonly<Record<string, number>>;
  /** When the clocks were last looked at. */
  readonly seen: Instant;
  /** Times of the wall clock whose fixed times are done with: ascending, apart from each other. */
  readonly lived: readonly Stretch[];
  /** Fixed times that one copy has stood for when the wall clock leapt over them. */
  readonly answered: readonly number[];
  /** Copy types that a fixed time or an event asks for. */
  readonly owed: Readonly<Record<string, Owed>>;
}

interface Owed {
  /** On the monotonic clock. */
  readonly sinceMs: number;
  readonly why: DueReason;
  /** Whether or not the type has a schedule. */
  readonly isAsked?: boolean;
}

export type DueReason = 'first' | 'interval' | 'fixed' | 'variable' | 'event';

export interface DueCopy {
  readonly copyType: string;
  /** On the monotonic clock. */
  readonly dueAtMs: number;
  readonly why: DueReason;
}

/** What is so at the moment, besides the clocks. */
export interface Situation {
  /** Some copy of the machine exists. */
  readonly hasCopy: boolean;
  /** The newest copy has been acknowledged. */
  readonly isAcknowledged: boolean;
  readonly lastTransfer: Transfer | undefined;
}

/** Copies of two types that are due within this time of each other are one, where the one counts as the other. */
const TOGETHER_MS = 500;
/** Events come as often as the world likes; a type is not copied more often for them. */
const EVENT_PAUSE_MS = 1_000;
/** Where fixed times or windows matter, the wall clock is looked at this often: it may have been set. */
const LOOK_AT_WALL_MS = 60_000;
/** Between two looks the clocks may drift apart by this much; beyond it the wall clock has leapt. */
const LEAP_MS = 2_000;
const STRETCHES_MAX = 64;
const ANSWERED_MAX = 64;
const HOPS_MAX = 2 * (STRETCHES_MAX + ANSWERED_MAX);

/** A plan with its cron expressions read. */
export class Schedule {
  readonly plan: CopyPlan;
  readonly #zones: Zones;
  readonly #fixed: ReadonlyMap<string, readonly FixedTimes[]>;

  private constructor(plan: CopyPlan, zones: Zones, fixed: ReadonlyMap<string, readonly FixedTimes[]>) {
    this.plan = plan;
    this.#zones = zones;
    this.#fixed = fixed;
  }

  /** Throws POLICY_TIME_INVALID. */
  static of(plan: CopyPlan, zones: Zones): Schedule {
    const fixed = plan.schedules.map(({ copyType, triggers }): [string, FixedTimes[]] => [
      copyType,
      triggers.flatMap((trigger) =>
        trigger.kind === 'fixed' ? [FixedTimes.parse(trigger.cron, trigger.zone)] : [],
      ),
    ]);
    return new Schedule(plan, zones, new Map(fixed.filter(([, times]) => times.length > 0)));
  }

  /**
   * The state of the beginning. A fixed time that has passed since the last copy (`lastCutAtMs`, on the wall clock) while
   * nobody looked is owed one copy.
   */
  begin(now: Instant, lastCutAtMs: number | undefined): ScheduleState {
    const seenMs = Math.min(now.wallMs, lastCutAtMs ?? now.wallMs);
    const state = {
      ...{ lastMade: {}, answered: [], owed: {} },
      seen: { wallMs: seenMs, monotonicMs: now.monotonicMs },
      lived: [{ fromMs: seenMs, toMs: seenMs }],
    };
    return this.look(state, now);
  }

  /**
   * What the clocks tell: fixed times that have come are owed. A clock that leaps forward makes at most one copy of a type;
   * one that is put back repeats none that it has seen; put right again, it leaves none out that it has not seen.
   */
  look(state: ScheduleState, now: Instant): ScheduleState {
    const { seen } = state;
    const expectedMs = seen.wallMs + (now.monotonicMs - seen.monotonicMs);
    if (Math.abs(now.wallMs - expectedMs) <= LEAP_MS) {
      const owed = this.#owing(state, seen.wallMs, now);
      const lived = livedWith(state.lived, { fromMs: seen.wallMs, toMs: Math.max(seen.wallMs, now.wallMs) });
      return { ...state, seen: now, lived, owed: owed.owed };
    }
    const here = { fromMs: now.wallMs, toMs: now.wallMs };
    if (now.wallMs < expectedMs) {
      // When the clock was put back is not known: a time that nobody saw come is still to come.
      return { ...state, seen: now, lived: livedWith(state.lived, here) };
    }
    const { owed, passed } = this.#owing(state, seen.wallMs, now);
    const before = { fromMs: seen.wallMs, toMs: expectedMs };
    return {
      ...{ ...state, owed, seen: now, lived: livedWith(livedWith(state.lived, before), here) },
      answered: [...state.answered, ...passed].slice(-ANSWERED_MAX),
    };
  }

  #owing(
    state: ScheduleState,
    sinceMs: number,
    now: Instant,
  ): { owed: ScheduleState['owed']; passed: readonly number[] } {
    const owed = { ...state.owed };
    const passed: number[] = [];
    for (const [copyType, times] of this.#fixed) {
      for (const fixed of times) {
        const atMs = fixed.latest(sinceMs, now.wallMs);
        if (atMs === undefined || isDone(state, atMs)) continue;
        passed.push(atMs);
        owed[copyType] ??= { sinceMs: now.monotonicMs, why: 'fixed' };
      }
    }
    return { owed, passed };
  }

  /** An event asks for a copy, `isAsked` if also of a type without a schedule. However often it does, one is owed. */
  event(state: ScheduleState, copyType: string, nowMs: number, isAsked = false): ScheduleState {
    const owed: Owed = state.owed[copyType] ?? { sinceMs: nowMs, why: 'event' };
    return { ...state, owed: { ...state.owed, [copyType]: isAsked ? { ...owed, isAsked } : owed } };
  }

  /** The schedules, and types without one that are asked for, in front: of copies that are due together a later one counts. */
  #asked({ owed }: ScheduleState): CopyPlan['schedules'] {
    const { schedules } = this.plan;
    const others = Object.entries(owed).flatMap(([copyType, { isAsked }]) =>
      isAsked && !schedules.some((schedule) => schedule.copyType === copyType) ? [copyType] : [],
    );
    return [...others.map((copyType) => ({ copyType, triggers: [] })), ...schedules];
  }

  /** Copy types with a trigger that `isMeant` names. */
  typesWith(isMeant: (trigger: Trigger, copyType: string) => boolean): readonly string[] {
    return this.plan.schedules
      .filter(({ copyType, triggers }) => triggers.some((trigger) => isMeant(trigger, copyType)))
      .map(({ copyType }) => copyType);
  }

  /**
   * A copy that was due has been made or passed over: its type, and those that it counts as, are not owed any more. An
   * interval keeps its beat unless a whole one was missed.
   */
  made(state: ScheduleState, copyType: string, nowMs: number): ScheduleState {
    const lastMade: Record<string, number> = { ...state.lastMade };
    const owed = { ...state.owed };
    for (const { copyType: type, triggers } of this.#asked(state)) {
      if (!countsAs(copyType, type)) continue;
      delete owed[type];
      const everyMs = Math.min(
        ...triggers.map((trigger) =>
          trigger.kind === 'interval' ? trigger.everyMs : Number.POSITIVE_INFINITY,
        ),
      );
      const beatMs = (state.lastMade[type] ?? Number.NEGATIVE_INFINITY) + everyMs;
      const isOnBeat = beatMs <= nowMs + TOGETHER_MS && nowMs - beatMs < everyMs;
      lastMade[type] = isOnBeat ? beatMs : nowMs;
    }
    return { ...state, lastMade, owed };
  }

  /**
   * The next copy to make and when. Of several types that are due together, one that counts as others is made in place of
   * them; the one listed later first. In a blackout nothing is due before its end.
   */
  next(state: ScheduleState, now: Instant, situation: Situation): DueCopy | undefined {
    const due = this.#asked(state).flatMap(({ copyType, triggers }) => {
      const wanted = this.#wanted(copyType, triggers, state, now, situation);
      return wanted ? [{ ...wanted, dueAtMs: this.#afterBlackout(wanted.dueAtMs, now) }] : [];
    });
    const firstMs = Math.min(...due.map(({ dueAtMs }) => dueAtMs));
    const together = due.filter(({ dueAtMs }) => dueAtMs <= Math.max(firstMs, now.monotonicMs) + TOGETHER_MS);
    const chosen = together.findLast(({ copyType }) => copyType !== LEAST) ?? together.at(-1);
    return chosen && { ...chosen, dueAtMs: firstMs };
  }

  /** Not later than this, on the monotonic clock, `look` and `next` are to be asked again, though nothing happens. */
  lookAgainAtMs(now: Instant): number {
    const isBoundToWall = this.#fixed.size > 0 || (this.plan.blackouts ?? []).length > 0;
    return isBoundToWall ? now.monotonicMs + LOOK_AT_WALL_MS : Number.POSITIVE_INFINITY;
  }

  /** Some trigger makes its first copy at once anyway. */
  get #hasBeat(): boolean {
    return this.typesWith(({ kind }) => kind === 'interval' || kind === 'variable').length > 0;
  }

  #wanted(
    copyType: string,
    triggers: readonly Trigger[],
    state: ScheduleState,
    now: Instant,
    situation: Situation,
  ): DueCopy | undefined {
    const last = state.lastMade[copyType];
    const wanted: DueCopy[] = [];
    const want = (dueAtMs: number, why: DueReason) => wanted.push({ copyType, dueAtMs, why });
    if (!situation.hasCopy && !this.#hasBeat && Object.keys(state.lastMade).length === 0) {
      want(now.monotonicMs, 'first');
    }
    const owed = state.owed[copyType];
    if (owed) {
      const isTooSoon = owed.why === 'event' && last !== undefined && owed.sinceMs < last + EVENT_PAUSE_MS;
      want(isTooSoon ? last + EVENT_PAUSE_MS : owed.sinceMs, owed.why);
    }
    for (const trigger of triggers) {
      if (trigger.kind === 'interval') {
        want(last === undefined ? now.monotonicMs : last + trigger.everyMs, 'interval');
      } else if (trigger.kind === 'variable') {
        const { isAcknowledged, lastTransfer } = situation;
        const pauseMs = isAcknowledged ? variableIntervalMs(trigger, lastTransfer) : trigger.maximumMs;
        want(last === undefined ? now.monotonicMs : last + pauseMs, 'variable');
      }
    }
    const fixedAtMs = this.#nextFixed(copyType, state, now);
    if (fixedAtMs !== undefined) want(now.monotonicMs + (fixedAtMs - now.wallMs), 'fixed');
    return wanted.reduce<DueCopy | undefined>((a, b) => (a && a.dueAtMs <= b.dueAtMs ? a : b), undefined);
  }

  #nextFixed(copyType: string, state: ScheduleState, now: Instant): number | undefined {
    const times = (this.#fixed.get(copyType) ?? []).flatMap(
      (fixed) => nextUndone(fixed, state, now.wallMs) ?? [],
    );
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #afterBlackout(dueAtMs: number, now: Instant): number {
    const blackouts = this.plan.blackouts ?? [];
    if (blackouts.length === 0) return dueAtMs;
    const at = Math.max(dueAtMs, now.monotonicMs);
    const wallMs = now.wallMs + (at - now.monotonicMs);
    const endMs = endOfWindows(blackouts, wallMs, this.#zones);
    if (endMs === undefined) return Number.POSITIVE_INFINITY;
    return endMs === wallMs ? dueAtMs : at + (endMs - wallMs);
  }
}

/** The copy type that every other one counts as too. */
const LEAST = 'crash';

/** Whether a copy of one type is one of another type too. */
export function countsAs(made: string, wanted: string): boolean {
  return made === wanted || wanted === LEAST;
}

function isDone({ lived, answered }: ScheduleState, atMs: number): boolean {
  return lived.some(({ fromMs, toMs }) => fromMs <= atMs && atMs <= toMs) || answered.includes(atMs);
}

function nextUndone(fixed: FixedTimes, state: ScheduleState, afterMs: number): number | undefined {
  let atMs = fixed.next(afterMs);
  for (let hops = 0; atMs !== undefined && isDone(state, atMs) && hops < HOPS_MAX; hops++) {
    const at: number = atMs;
    const stretch = state.lived.find(({ fromMs, toMs }) => fromMs <= at && at <= toMs);
    atMs = fixed.next(stretch?.toMs ?? at);
  }
  return atMs;
}

/** The stretches with one more, joined where they meet; of too many the oldest are forgotten. */
function livedWith(stretches: readonly Stretch[], added: Stretch): Stretch[] {
  const joined: Stretch[] = [];
  for (const stretch of [...stretches, added].sort((a, b) => a.fromMs - b.fromMs)) {
    const last = joined.at(-1);
    if (last && stretch.fromMs <= last.toMs + 1) {
      joined[joined.length - 1] = { fromMs: last.fromMs, toMs: Math.max(last.toMs, stretch.toMs) };
    } else joined.push(stretch);
  }
  return joined.slice(-STRETCHES_MAX);
}
