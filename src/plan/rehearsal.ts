import type { PlanRun, RehearsalTimes } from '../api/index.ts';
import { FixedTimes, pointFailure } from '../recovery-point/index.ts';

/** When a plan is rehearsed by itself; pure. docs/plans.md, «Every night», docs/adr/0027. */

/** What a site keeps of it. All times are of the clock on the wall, which may be set. */
export interface KeptRehearsal {
  readonly plan: string;
  readonly times: RehearsalTimes;
  readonly withinMs: number;
  /** What was before is owed by nobody. */
  readonly sinceMs: number;
  /** When the newest rehearsal began, and the newest that passed; runs are not kept for ever. */
  readonly lastBeganAtMs?: number;
  readonly lastPassedAtMs?: number;
}

export interface RehearsalStanding {
  /** When the next one begins if nothing hinders it; what was missed meanwhile is one rehearsal. Undefined: never again. */
  readonly dueAtMs: number | undefined;
  readonly isOverdue: boolean;
  /** The newest one that has come to an end by itself, and has not passed. */
  readonly failing: PlanRun | undefined;
}

/** Throws POLICY_TIME_INVALID, POLICY_NEVER. */
export function checkRehearsalTimes(times: RehearsalTimes, nowMs: number): void {
  if (times.kind === 'interval' || FixedTimes.parse(times.cron, times.zone).next(nowMs) !== undefined) return;
  throw pointFailure('POLICY_NEVER', `«${times.cron}» (${times.zone}) never comes`);
}

/** A clock may be set back by so much without that being looked at. */
const SKEW_MS = 60_000;

/**
 * What is kept after the runs of the site have been looked at. What lies ahead of the clock was recorded by one that was wrong: it counts for
 * nothing, so that a clock that was set back costs one rehearsal too many, and none too few.
 */
export function afterRuns(kept: KeptRehearsal, runs: readonly PlanRun[], nowMs: number): KeptRehearsal {
  const { lastBeganAtMs, lastPassedAtMs, ...others } = kept;
  const own = rehearsalsOf(kept.plan, runs);
  const newest = (known: number | undefined, from: readonly PlanRun[]) => {
    const times = [...(known === undefined ? [] : [known]), ...from.map(({ startedAtMs }) => startedAtMs)];
    const past = times.filter((ms) => ms <= nowMs + SKEW_MS);
    return past.length > 0 ? Math.max(...past) : undefined;
  };
  const began = newest(lastBeganAtMs, own);
  const passed = newest(
    lastPassedAtMs,
    own.filter(({ verdict }) => verdict === 'done'),
  );
  return {
    ...others,
    sinceMs: Math.min(kept.sinceMs, nowMs),
    ...(began === undefined ? {} : { lastBeganAtMs: began }),
    ...(passed === undefined ? {} : { lastPassedAtMs: passed }),
  };
}

/** The rehearsals of a plan among the runs of a site; not one that never came to its job, and so to nothing, also if it was ended since. */
export function rehearsalsOf(plan: string, runs: readonly PlanRun[]): readonly PlanRun[] {
  return runs.filter((run) => run.document.plan === plan && run.request.mode === 'test' && isCarriedOut(run));
}

/** Whether a run has come to its job, and so to anything. */
export function isCarriedOut({ jobId, steps }: Pick<PlanRun, 'jobId' | 'steps'>): boolean {
  return jobId !== undefined || steps.some(({ state }) => state !== 'waiting');
}

/** Of what `afterRuns` gave; `runs` are the newest first. */
export function standingOf(kept: KeptRehearsal, runs: readonly PlanRun[], nowMs: number): RehearsalStanding {
  const newest = rehearsalsOf(kept.plan, runs).find(
    ({ verdict }) => verdict !== undefined && verdict !== 'cancelled',
  );
  const owedAtMs = timeAfter(kept, kept.lastPassedAtMs);
  return {
    dueAtMs: timeAfter(kept, kept.lastBeganAtMs),
    isOverdue: owedAtMs !== undefined && nowMs > owedAtMs + kept.withinMs,
    failing: newest && newest.verdict !== 'done' ? newest : undefined,
  };
}

/** The first time after a rehearsal. */
function timeAfter({ times, sinceMs }: KeptRehearsal, lastMs: number | undefined): number | undefined {
  if (times.kind === 'interval') return lastMs === undefined ? sinceMs : lastMs + times.everyMs;
  return FixedTimes.parse(times.cron, times.zone).next(Math.max(sinceMs, lastMs ?? 0));
}
