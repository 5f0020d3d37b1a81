import type { DrillView, JobView } from '../../api/index.ts';
import type { DrillAttempt, DrillOutcome } from '../../recovery-point/index.ts';
import { hasEnded } from '../base/jobs.ts';

/** What a job that boots a point in isolation has returned, as far as it tells how that went. */
interface Booted {
  readonly verdict?: string;
  readonly rtoMs?: number | null;
  readonly attempts?: readonly {
    readonly reasons?: readonly string[];
    readonly assertions?: readonly { readonly name: string; readonly outcome: string }[];
  }[];
}

/** Codes of failures that are no word about the point, nor about the site. */
const SPECIAL: Readonly<Record<string, DrillOutcome>> = {
  FAILOVER_GAVE_WAY: 'gave-way',
  JOB_INTERRUPTED: 'interrupted',
};

/** How a job that boots a point ended, and what there is to say against it. Pure; the job has ended. */
export function outcomeOf({ state, failure, result }: JobView): {
  readonly outcome: DrillOutcome;
  readonly reason?: string;
} {
  if (state === 'cancelled') return { outcome: 'cancelled' };
  if (state !== 'done') {
    const { code = '', message = state } = failure ?? {};
    return { outcome: SPECIAL[code] ?? 'hindered', reason: message };
  }
  const { verdict, attempts = [] } = (result ?? {}) as Booted;
  const last = attempts.at(-1);
  if (verdict === 'failed') {
    return { outcome: 'failed', reason: (last?.reasons ?? []).join('; ') || 'it did not come up' };
  }
  const broken = (last?.assertions ?? []).filter(({ outcome }) => outcome === 'failed');
  if (broken.length > 0) return { outcome: 'refuted', reason: notAsClaimed(broken.map(({ name }) => name)) };
  return verdict === 'passed'
    ? { outcome: 'passed' }
    : { outcome: 'unproven', reason: 'nothing was asked of it' };
}

export function notAsClaimed(names: readonly string[]): string {
  return `not as claimed: ${names.join(', ')}`;
}

/** A drill as planning looks at it; undefined while it is under way. */
export function attemptOf(job: JobView): DrillAttempt | undefined {
  if (!hasEnded(job)) return undefined;
  const { args, createdAtMs, startedAtMs = createdAtMs, endedAtMs = startedAtMs } = job;
  return {
    ...{ pointId: String(args.pointId), sequence: Number(args.sequence), ofOthers: args.ofOthers === true },
    ...{ startedAtMs, endedAtMs },
    ...outcomeOf(job),
  };
}

/** A drill for people. */
export function drillViewOf(job: JobView): DrillView {
  const { jobId, machineId, actor, args, state, startedAtMs, endedAtMs, result } = job;
  const underWay = state === 'queued' || state === 'running';
  const { rtoMs } = (result ?? {}) as Booted;
  return {
    ...{ jobId, machineId, actor, pointId: String(args.pointId), sequence: Number(args.sequence) },
    ...(underWay ? { outcome: state } : outcomeOf(job)),
    ...(startedAtMs === undefined ? {} : { startedAtMs }),
    ...(endedAtMs === undefined ? {} : { endedAtMs }),
    ...(typeof rtoMs === 'number' ? { rtoMs } : {}),
  };
}
