/** A copy type made every so often. Further kinds of schedule stand beside this one, not inside it. */
export interface IntervalSchedule {
  readonly copyType: string;
  readonly everyMs: number;
}

/** When each copy type was last made, on the monotonic clock; absent if never since the start. */
export type LastMade = Readonly<Record<string, number>>;

export interface DueCopy {
  readonly copyType: string;
  readonly dueAtMs: number;
}

/**
 * The next copy to make and when, on the monotonic clock. Pure. When two types fall due within `togetherMs`, the one
 * listed later in `schedules` (the more consistent) is made alone: it counts as the other too.
 */
export function nextDue(
  schedules: readonly IntervalSchedule[],
  lastMade: LastMade,
  nowMs: number,
  togetherMs: number,
): DueCopy | undefined {
  const due = schedules.map(({ copyType, everyMs }) => {
    const last = lastMade[copyType];
    return { copyType, dueAtMs: last === undefined ? nowMs : last + everyMs };
  });
  const first = due.reduce<DueCopy | undefined>(
    (a, b) => (a === undefined || b.dueAtMs < a.dueAtMs ? b : a),
    undefined,
  );
  if (!first) return undefined;
  const together = due.filter((copy) => copy.dueAtMs <= Math.max(first.dueAtMs, nowMs) + togetherMs);
  return { copyType: together.at(-1)!.copyType, dueAtMs: first.dueAtMs };
}
