import Type from 'typebox';
import { Value } from 'typebox/value';
import type { JobView } from '../../api/index.ts';
import { EXIT_FOUND_BAD, type Report } from '../context.ts';
import { formatAge, formatDuration, formatTime } from '../format.ts';
import type { Cell, Page, Tone } from '../page.ts';

/**
 * The part of a failover's report that people read. The contract leaves the results of jobs open, so that it is checked
 * here; a result of another shape is printed as it came.
 */
const Verdict = Type.Union([Type.Literal('passed'), Type.Literal('failed'), Type.Literal('unproven')]);
const Step = Type.Object({ name: Type.String(), durationMs: Type.Number() });
const Point = Type.Object({
  branchName: Type.Optional(Type.String()),
  sequence: Type.Integer(),
  copyType: Type.String(),
  consistency: Type.String(),
  cutAtMs: Type.Number(),
});
const FailoverReport = Type.Object({
  kind: Type.String(),
  machine: Type.Object({ name: Type.String() }),
  verdict: Verdict,
  branchId: Type.Union([Type.String(), Type.Null()]),
  point: Point,
  epoch: Type.Integer(),
  rtoMs: Type.Union([Type.Number(), Type.Null()]),
  accelerator: Type.String(),
  steps: Type.Array(Step),
  warnings: Type.Array(Type.String()),
  forward: Type.Optional(
    Type.Object({
      branchId: Type.String(),
      from: Point,
      following: Type.Array(Point),
      oldBranch: Type.String(),
    }),
  ),
  attempts: Type.Array(
    Type.Object({
      point: Point,
      reason: Type.String(),
      verdict: Verdict,
      reasons: Type.Array(Type.String()),
      kept: Type.Boolean(),
      branchId: Type.String(),
      preparedBranchId: Type.Optional(Type.String()),
      assertions: Type.Optional(
        Type.Array(
          Type.Object({
            name: Type.String(),
            outcome: Type.String(),
            tookMs: Type.Number(),
            exitCode: Type.Optional(Type.Integer()),
            output: Type.Optional(Type.String()),
            reason: Type.Optional(Type.String()),
          }),
        ),
      ),
      picturePath: Type.Union([Type.String(), Type.Null()]),
      network: Type.Object({
        kind: Type.String(),
        reason: Type.Optional(Type.String()),
        unplugged: Type.Optional(Type.Array(Type.String())),
      }),
      probes: Type.Array(
        Type.Object({
          probe: Type.Object({ kind: Type.String() }),
          passed: Type.Boolean(),
          durationMs: Type.Number(),
          reason: Type.Optional(Type.String()),
        }),
      ),
    }),
  ),
});
type FailoverReport = Type.Static<typeof FailoverReport>;
type Attempt = FailoverReport['attempts'][number];

const TONES: Readonly<Record<FailoverReport['verdict'], Tone>> = {
  passed: 'good',
  failed: 'bad',
  unproven: 'warning',
};

/** The report of a failover or of a test; a verdict of `failed`, or a failed assertion, ends the command with EXIT_FOUND_BAD. */
export function failoverReport(job: JobView, nowMs: number): Report {
  const { result } = job;
  if (!Value.Check(FailoverReport, result)) {
    return {
      document: job,
      print: (page) => page.line(`Job ${job.jobId} is ${job.state}: ${JSON.stringify(result)}`),
    };
  }
  return {
    document: job,
    print: (page) => printReport(page, result, nowMs),
    ...(isBad(result) ? { exitCode: EXIT_FOUND_BAD } : {}),
  };
}

const TITLES: Readonly<Record<string, string>> = {
  test: 'Test failover',
  prepare: 'Preparation',
  planned: 'Planned failover',
};

function isBad({ verdict, attempts }: FailoverReport): boolean {
  return (
    verdict === 'failed' ||
    attempts.some(({ assertions = [] }) => assertions.some(({ outcome }) => outcome === 'failed'))
  );
}

function printReport(page: Page, report: FailoverReport, nowMs: number): void {
  const { kind, machine, verdict, branchId, point, rtoMs, accelerator, steps } = report;
  page.title(`${TITLES[kind] ?? 'Failover'} of ${machine.name}`).fields([
    ['verdict', { text: verdict, tone: TONES[verdict] }],
    ['point', describe(point, nowMs)],
    ['forward', report.forward && wayOf(report.forward)],
    ['RTO measured', rtoMs === null ? undefined : formatDuration(rtoMs)],
    ['epoch', String(report.epoch)],
    ['accelerator', accelerator],
    ['steps', steps.map(({ name, durationMs }) => `${name} ${formatDuration(durationMs)}`).join(', ')],
    ['running branch', branchId ?? 'none'],
  ]);
  report.attempts.forEach((attempt, index) => {
    printAttempt(page, attempt, index + 1, nowMs);
  });
  for (const warning of report.warnings) page.line('').line({ text: 'Warning: ', tone: 'warning' }, warning);
  if (branchId !== null && kind === 'test') {
    page
      .line('')
      .line(`Clean up when you have seen enough: warmsite failover cleanup ${machine.name} ${branchId}`);
  }
}

function wayOf({ branchId, from, following, oldBranch }: NonNullable<FailoverReport['forward']>): string {
  const way = [from, ...following].map(({ sequence }) => sequence).join(' → ');
  return `points ${way}; branch ${branchId} ${oldBranch === 'runs-again' ? 'runs again' : oldBranch}`;
}

function printAttempt(page: Page, attempt: Attempt, number: number, nowMs: number): void {
  page.title(`Attempt ${number}`).fields([
    ['point', describe(attempt.point, nowMs)],
    ['chosen because', attempt.reason],
    ['verdict', { text: attempt.verdict, tone: TONES[attempt.verdict] }],
    ['network', networkOf(attempt.network)],
    ['picture', attempt.picturePath ?? undefined],
    ['branch', attempt.kept ? attempt.branchId : undefined],
    ['started from', attempt.preparedBranchId && `prepared branch ${attempt.preparedBranchId}`],
  ]);
  for (const reason of attempt.reasons) page.line({ text: `  ${reason}`, tone: 'bad' });
  for (const { probe, passed, durationMs, reason } of attempt.probes) {
    const text = `  probe ${probe.kind}: ${passed ? 'passed' : 'failed'} after ${formatDuration(durationMs)}`;
    page.line({ text, tone: passed ? 'good' : 'bad' }, reason === undefined || passed ? '' : `, ${reason}`);
  }
  for (const assertion of attempt.assertions ?? []) page.line(...assertionLine(assertion));
}

function assertionLine({
  name,
  outcome,
  tookMs,
  exitCode,
  output = '',
  reason,
}: NonNullable<Attempt['assertions']>[number]) {
  const why = reason ?? (exitCode === undefined || exitCode === 0 ? '' : `exit code ${exitCode}`);
  const said = [why, output.trim()].filter((part) => part !== '').join(': ');
  const text = `  assertion ${name}: ${outcome} after ${formatDuration(tookMs)}`;
  const tone: Tone = outcome === 'held' ? 'good' : outcome === 'failed' ? 'bad' : 'warning';
  return [{ text, tone }, said === '' ? '' : `, ${said}`] as const;
}

/** A machine that came up without its networks is found by the one who looks for it: say so. */
function networkOf({ kind, reason, unplugged }: Attempt['network']): Cell {
  if (reason !== undefined) return { text: `${kind}: ${reason}`, tone: 'warning' };
  if (unplugged === undefined || unplugged.length === 0) return kind;
  return { text: `${kind}; not plugged in: ${unplugged.join(', ')}`, tone: 'warning' };
}

function describe(point: FailoverReport['point'], nowMs: number): string {
  const { sequence, consistency, cutAtMs, branchName } = point;
  if (branchName !== undefined) return `none: what was written here after point ${sequence} (${branchName})`;
  return `${sequence}, ${consistency}-consistent, cut ${formatTime(cutAtMs)} (${formatAge(cutAtMs, nowMs)})`;
}
