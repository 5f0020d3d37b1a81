import type { AuditView, JobView } from '../../api/index.ts';
import { isId } from '../../lib/random.ts';
import { reportFailure } from '../../report/index.ts';
import type { Audit } from '../base/audit.ts';
import type { EndingJob, JobKind } from '../base/jobs.ts';
import { controlFailure } from '../errors.ts';

/** A job that has ended, or an adoption in the form of one. */
export interface EndedAct extends Omit<EndingJob, 'job'> {
  readonly job: Omit<JobView, 'kind'> & { readonly kind: JobKind | 'failover.adopt' };
}

/** Entries of the audit log that are looked through. */
const ENTRIES_MAX = 1000;

/** What the newest entries of the audit log say of adoptions that have ended; each names its report. One without an end is under way. */
export function endedAdoptions(audit: Pick<Audit, 'list'>): EndedAct[] {
  const entries = audit.list({ limit: ENTRIES_MAX });
  const ends = endsIn(entries);
  return entries.flatMap((entry) => {
    const { act, phase, sequence, details } = entry;
    const reportId = String(details.reportId);
    const end = ends.get(sequence);
    return act === 'failover.adopt' && phase === 'intent' && end && isId(reportId)
      ? [actOf(entry, end, reportId)]
      : [];
  });
}

/**
 * To be called before anything is adopted: ends what earlier processes have left without an end. Of a branch that is the machine now the newest
 * attempt that has not failed has made it that; all others came to nothing. `undefined`: that cannot be said yet, and is left to the next process.
 */
export function endAdoptions(
  audit: Pick<Audit, 'list' | 'end'>,
  isAdopted: (machineId: string, branchId: string) => boolean | undefined,
): void {
  const entries = audit.list({ limit: ENTRIES_MAX });
  const ends = endsIn(entries);
  const made = new Set<string>();
  for (const { actor, act, phase, sequence, subject = '', details } of entries) {
    const end = ends.get(sequence);
    if (act !== 'failover.adopt' || phase !== 'intent' || end?.phase === 'failed') continue;
    const branchId = String(details.branchId);
    const isNewest = !made.has(`${subject} ${branchId}`);
    made.add(`${subject} ${branchId}`);
    const adopted = isAdopted(subject, branchId);
    if (end || adopted === undefined) continue;
    audit.end(sequence, { actor, act, subject }, adopted && isNewest ? undefined : interrupted());
  }
}

/** By the intents that they end. */
function endsIn(entries: readonly AuditView[]): ReadonlyMap<number | undefined, AuditView> {
  return new Map(entries.map((entry) => [entry.intent, entry]));
}

function actOf(entry: AuditView, end: AuditView, jobId: string): EndedAct {
  const { actor, atMs, subject = '', details, sequence } = entry;
  const failure = end.phase === 'done' ? undefined : failureOf(end);
  return {
    ...{ intent: sequence, steps: [{ step: 'adopt', beganAtMs: atMs }] },
    job: {
      ...{ jobId, kind: 'failover.adopt', machineId: subject, actor, args: { branchId: details.branchId } },
      ...{ createdAtMs: atMs, startedAtMs: atMs, endedAtMs: end.atMs, progress: {} },
      ...(failure
        ? { state: 'failed', failure: failure.toJSON() as NonNullable<JobView['failure']> }
        : { state: 'done' }),
    },
  };
}

/** The audit log has the code of what failed and not its words. */
function failureOf({ details: { code } }: AuditView) {
  return code === 'JOB_INTERRUPTED'
    ? interrupted()
    : reportFailure('ADOPTION_FAILED', `it failed with ${String(code)}`);
}

function interrupted() {
  return controlFailure('JOB_INTERRUPTED', 'the site process ended while the machine was being adopted');
}
