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

/** What the newest entries of the audit log say of adoptions; each names its report. */
export function endedAdoptions(audit: Pick<Audit, 'list'>, when: 'started' | 'running'): EndedAct[] {
  const entries = audit.list({ limit: ENTRIES_MAX });
  const ends = new Map(entries.map((entry) => [entry.intent, entry]));
  return entries.flatMap((entry) => {
    const { act, phase, sequence, details } = entry;
    const reportId = String(details.reportId);
    if (act !== 'failover.adopt' || phase !== 'intent' || !isId(reportId)) return [];
    const end = ends.get(sequence);
    return end || when === 'started' ? [actOf(entry, end, reportId)] : [];
  });
}

/** Says of adoptions that they have been done which an earlier process has carried out, and ended before it could say so. What is so decides. */
export function endAdoptions(
  audit: Pick<Audit, 'list' | 'end'>,
  isAdopted: (machineId: string, branchId: string) => boolean,
): void {
  const entries = audit.list({ limit: ENTRIES_MAX });
  const ended = new Set(entries.map(({ intent }) => intent));
  for (const { actor, act, phase, sequence, subject = '', details } of entries) {
    const isOpen = act === 'failover.adopt' && phase === 'intent' && !ended.has(sequence);
    if (isOpen && isAdopted(subject, String(details.branchId)))
      audit.end(sequence, { actor, act, subject }, undefined);
  }
}

function actOf(entry: AuditView, end: AuditView | undefined, jobId: string): EndedAct {
  const { actor, atMs, subject = '', details, sequence } = entry;
  const failure = end?.phase === 'done' ? undefined : failureOf(end);
  return {
    ...{ intent: sequence, steps: [{ step: 'adopt', beganAtMs: atMs }] },
    job: {
      ...{ jobId, kind: 'failover.adopt', machineId: subject, actor, args: { branchId: details.branchId } },
      ...{ createdAtMs: atMs, startedAtMs: atMs, endedAtMs: end?.atMs ?? atMs, progress: {} },
      ...(failure
        ? { state: 'failed', failure: failure.toJSON() as NonNullable<JobView['failure']> }
        : { state: 'done' }),
    },
  };
}

/** The audit log has the code of what failed and not its words. */
function failureOf(end: AuditView | undefined) {
  if (!end)
    return controlFailure('JOB_INTERRUPTED', 'the site process ended while the machine was being adopted');
  return reportFailure('ADOPTION_FAILED', `it failed with ${String(end.details.code)}`);
}
