import type { SignedReport } from '../../api/index.ts';

/** What of a report decides how long it is kept. */
export interface ReportFacts {
  readonly reportId: string;
  /** A test, a drill, or the rehearsal of a plan: it proves, and has changed nothing. */
  readonly isTest: boolean;
  /** The machine, by its id, or the plan. */
  readonly about: string;
  readonly machineId?: string;
  readonly hasPassed: boolean;
  readonly endedAtMs: number;
  /** The points that were tried. */
  readonly pointIds: readonly string[];
  /** The reports that a reader of this one needs as well. */
  readonly names: readonly string[];
}

export function factsOf({ report }: SignedReport): ReportFacts {
  const { reportId, kind, verdict, machine, plan, request, attempts } = report;
  const isRehearsal = kind === 'plan' && plan?.mode === 'test';
  return {
    reportId,
    isTest: kind === 'test' || kind === 'drill' || isRehearsal,
    about: kind === 'plan' ? `plan ${plan?.name}` : `machine ${machine?.machineId}`,
    ...(kind !== 'plan' && machine ? { machineId: machine.machineId } : {}),
    hasPassed: verdict === 'passed',
    endedAtMs: request.endedAtMs,
    pointIds: attempts.map(({ point }) => point.pointId),
    names: (plan?.steps ?? []).flatMap((step) => (step.report ? [step.report.reportId] : [])),
  };
}

export interface RetentionGround {
  readonly nowMs: number;
  readonly keepTestsMs: number;
  /** Whether this site still has the point, or cannot say. */
  readonly hasPoint: (machineId: string, pointId: string) => boolean;
}

/**
 * The reports that may go: those of tests that are too old. Whatever their age, of each machine and each plan the newest one stays and the
 * newest that passed, all of points that are still there, and all that a report that stays names.
 */
export function expiredReports(
  reports: readonly ReportFacts[],
  { nowMs, keepTestsMs, hasPoint }: RetentionGround,
): string[] {
  const newest = new Set<string>();
  const seen = new Set<string>();
  const tests = reports.filter(({ isTest }) => isTest);
  for (const { reportId, about, hasPassed } of tests.toSorted((a, b) => b.endedAtMs - a.endedAtMs)) {
    for (const role of [about, ...(hasPassed ? [`${about} passed`] : [])]) {
      if (!seen.has(role)) newest.add(reportId);
      seen.add(role);
    }
  }
  const mayGo = ({ reportId, isTest, endedAtMs, machineId, pointIds }: ReportFacts) =>
    isTest &&
    endedAtMs + keepTestsMs < nowMs &&
    !newest.has(reportId) &&
    !pointIds.some((pointId) => machineId !== undefined && hasPoint(machineId, pointId));
  const named = new Set(reports.filter((one) => !mayGo(one)).flatMap(({ names }) => names));
  return reports.filter((one) => mayGo(one) && !named.has(one.reportId)).map(({ reportId }) => reportId);
}
