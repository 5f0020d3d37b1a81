import type {
  AuditView,
  PlanRun,
  Report,
  ReportKind,
  ReportVerdict,
  RunStep,
  TimelineEntry,
} from '../../api/index.ts';
import type { FailoverReport, StepReport } from '../../failover/index.ts';
import { canonicalJson, type Json } from '../../lib/canonical-json.ts';
import { sha256 } from '../../report/index.ts';
import type { EndedAct } from './report-adoptions.ts';
import { cut, SAID_CHARACTERS_MAX } from './report-evidence.ts';

/** By the kinds of jobs, also of those that not every version has. */
const KINDS: Readonly<Record<string, ReportKind>> = {
  'failover.test': 'test',
  'drill.run': 'drill',
  'failover.start': 'unplanned',
  'failover.take': 'take',
  'failover.cede': 'cede',
  'failover.restart': 'restart',
  'failover.forward': 'forward',
  'failover.adopt': 'adopt',
  'failover.undo': 'undo',
  'plan.run': 'plan',
};

/** What a job leaves a report of; undefined: of nothing. */
export function reportKindOf(kind: string): ReportKind | undefined {
  return KINDS[kind];
}

/** What a job of a failover came to, if it came to its report. */
export function failoverResultOf({ kind, result }: EndedAct['job']): FailoverReport | undefined {
  const isOne = kind !== 'failover.cede' && kind !== 'failover.undo' && kind !== 'plan.run';
  return isOne && result !== undefined ? (result as FailoverReport) : undefined;
}

export function verdictOf(
  { state, failure, result }: EndedAct['job'],
  run: PlanRun | undefined,
): ReportVerdict {
  if (run && state === 'done') return run.verdict === 'done' ? 'passed' : (run.verdict ?? 'failed');
  if (failure?.code === 'JOB_INTERRUPTED') return 'interrupted';
  if (state !== 'done') return state === 'cancelled' ? 'cancelled' : 'failed';
  return (result as Partial<FailoverReport> | undefined)?.verdict ?? 'passed';
}

/** Steps of a failover by its own watch, of a plan by its machines, of all else by what the job has said of itself. */
export function timelineOf(
  { job, steps }: Pick<EndedAct, 'job' | 'steps'>,
  failover: FailoverReport | undefined,
  run: PlanRun | undefined,
): TimelineEntry[] {
  const endedAtMs = job.endedAtMs ?? 0;
  if (run) {
    return run.steps.flatMap(({ machine, beganAtMs, endedAtMs: endMs = endedAtMs }) =>
      beganAtMs === undefined
        ? []
        : [{ name: machine, beganAtMs, durationMs: Math.max(0, endMs - beganAtMs) }],
    );
  }
  if (failover) return failoverTimeline(failover);
  return steps.map(({ step, beganAtMs }, index) => {
    const endMs = steps[index + 1]?.beganAtMs ?? endedAtMs;
    return { name: cut(step), beganAtMs, durationMs: Math.max(0, endMs - beganAtMs) };
  });
}

function failoverTimeline({ steps, attempts, startedAtMs }: FailoverReport): TimelineEntry[] {
  const ofAttempts = attempts.flatMap(({ steps: own }, index) =>
    own.map((step) => ({ ...step, attempt: index + 1 })),
  );
  const isOfAttempt = (step: object) => ofAttempts.some((own) => sameStep(own, step));
  // Reports of older jobs do not say when a step began: they followed each other.
  let atMs = startedAtMs;
  const ofCommand = steps.filter((step) => !isOfAttempt(step));
  const all: readonly (StepReport & { readonly attempt?: number })[] = [...ofCommand, ...ofAttempts];
  return all.map((step) => {
    const beganAtMs = (step as Partial<StepReport>).beganAtMs ?? Math.round(atMs);
    atMs = beganAtMs + step.durationMs;
    return {
      ...{ name: step.name, beganAtMs, durationMs: step.durationMs },
      ...(step.attempt === undefined ? {} : { attempt: step.attempt }),
    };
  });
}

function sameStep(
  a: { readonly name: string; readonly durationMs: number },
  b: { readonly name?: string; readonly durationMs?: number },
): boolean {
  return a.name === b.name && a.durationMs === b.durationMs;
}

/** Upon whose word something was done: what the request holds, and what people said to a run of a plan. */
export function confirmationsOf(
  { kind, args, actor, createdAtMs, result, machineId }: EndedAct['job'],
  about: {
    readonly run: PlanRun | undefined;
    readonly isOwnRun: boolean;
    /** What the audit log says of fencing for this job. */
    readonly fenced?: readonly AuditView[];
  },
): Report['confirmations'] {
  const { run, isOwnRun, fenced = [] } = about;
  const said: Report['confirmations'] = [];
  const down = { what: 'other-side-down' } as const;
  // In a run with both, what was asked of its witness came up without that word.
  const isVoted = args.askWitness === true && !isOwnRun;
  if (run?.request.confirmOtherSideDown && !isVoted)
    said.push({ ...down, by: run.actor, atMs: run.startedAtMs });
  else if (args.confirmOtherSideDown === true) said.push({ ...down, by: actor, atMs: createdAtMs });
  // A site that held the right before asked nobody.
  if (args.askWitness === true && (result as Partial<FailoverReport> | undefined)?.heldBy === 'votes')
    said.push({ what: 'votes', by: 'two of three sites' });
  said.push(...fenced.flatMap(fencedWord));
  if (kind === 'failover.cede' && args.powerOff === true)
    said.push({ what: 'power-off', by: actor, atMs: createdAtMs });
  // A plan may call the machine by its id.
  const steps = run?.steps.filter((step) => isOwnRun || step.machineId === machineId) ?? [];
  return [...said, ...steps.flatMap((step) => approvalsOf(step, run!))];
}

/** What people said yes to before a machine started, by the questions as they were asked. */
function approvalsOf({ machine, approvedBy, approvedAtMs, answers }: RunStep, run: PlanRun) {
  const what = 'approval' as const;
  const said = (answers ?? []).map((answer) => ({ what, machine, ...answer }));
  if (approvedBy === undefined || said.some(({ atMs }) => atMs === approvedAtMs)) return said;
  // An earlier program has kept no more than this.
  const question = run.document.machines[machine]?.approval;
  const before = {
    ...{ what, by: approvedBy, machine },
    ...(approvedAtMs === undefined ? {} : { atMs: approvedAtMs }),
    ...(question === undefined ? {} : { question }),
  };
  return [before, ...said];
}

/** That a program has ended well stands in the place of somebody's word, with who has asked for it. */
function fencedWord({ actor, phase, details }: AuditView): Report['confirmations'] {
  if (phase !== 'done') return [];
  const { program, output, beganAtMs } = details as { program: string; output: string; beganAtMs: number };
  return [
    {
      ...{ what: 'fenced', by: actor, atMs: beganAtMs, program },
      output: output.slice(-SAID_CHARACTERS_MAX),
    },
  ];
}

/**
 * How much is missing at most: of a handover nothing, unless the machine may have been at work upon the point before; of all else what was
 * written after the point until the command.
 */
export function lossOf(
  kind: ReportKind,
  verdict: ReportVerdict,
  o: {
    readonly commandAtMs: number;
    readonly point?: { readonly cutAtMs: number; readonly skewMs?: number | undefined } | undefined;
    readonly earlierBranchIds?: readonly string[] | undefined;
  },
): Pick<Report, 'rpo' | 'missing'> {
  const missing: string[] = [];
  if (verdict !== 'passed' && verdict !== 'unproven') return { missing };
  if (o.earlierBranchIds) return { missing: [cut(unknownLoss(o.earlierBranchIds))] };
  if (kind === 'cede' || kind === 'take') return { rpo: { ms: 0, basis: 'nothing-lost' }, missing };
  if (!(kind === 'test' || kind === 'drill' || kind === 'unplanned') || !o.point) return { missing };
  const { cutAtMs, skewMs } = o.point;
  const rpo = {
    ...{ ms: Math.max(0, o.commandAtMs - cutAtMs), basis: 'age' as const },
    ...(skewMs === undefined ? {} : { skewMs }),
  };
  return { rpo, missing };
}

function unknownLoss(earlierBranchIds: readonly string[]): string {
  const where =
    earlierBranchIds.length > 0
      ? `in ${earlierBranchIds.join(', ')} upon the same point, is not in this branch`
      : 'when the machine was taken over, is in no branch any more';
  return `how much is lost at most: what may have been written before, ${where}`;
}

/** What is known of the report of one machine of a run. */
export interface MachineReport {
  readonly named: { readonly reportId: string; readonly sha256: string };
  readonly rpo: Report['rpo'];
}

/** Of a run that brought machines up: until the last one was up, and the most that one of them lacks, if that is known of each. */
export function planFigures(
  { request, steps, startedAtMs }: PlanRun,
  reports: ReadonlyMap<string, MachineReport>,
): Pick<Report, 'rpo' | 'rtoMs' | 'missing'> {
  const up = steps.filter(({ state }) => state === 'done');
  if (request.mode === 'cede' || up.length === 0) return { missing: [] };
  const lastMs = Math.max(...up.map(({ endedAtMs = startedAtMs }) => endedAtMs));
  const rtoMs = Math.max(0, lastMs - startedAtMs);
  const lossOfStep = ({ jobId }: RunStep) => reports.get(jobId ?? '')?.rpo;
  const unknown = up.filter((step) => lossOfStep(step) === undefined).map(({ machine }) => machine);
  if (unknown.length > 0)
    return { rtoMs, missing: [cut(`how much is lost at most: no report says it of ${unknown.join(', ')}`)] };
  const [most] = up.flatMap((step) => lossOfStep(step) ?? []).toSorted((a, b) => b.ms - a.ms);
  return { rtoMs, ...(most ? { rpo: most } : {}), missing: [] };
}

/** The run of a plan, with what each of its machines has left of its own. */
export function planPart(
  run: PlanRun,
  reports: ReadonlyMap<string, MachineReport>,
): NonNullable<Report['plan']> {
  return {
    ...{ name: run.document.plan, runId: run.runId, mode: run.request.mode },
    documentSha256: sha256(canonicalJson(run.document as unknown as Json)),
    steps: run.steps.map(({ machine, state, beganAtMs, endedAtMs, reason, sequence, branchId, jobId }) => {
      const report = reports.get(jobId ?? '')?.named;
      return {
        ...{ machine, state },
        ...(beganAtMs === undefined ? {} : { beganAtMs }),
        ...(endedAtMs === undefined ? {} : { endedAtMs }),
        ...(reason === undefined ? {} : { reason: cut(reason) }),
        ...(sequence === undefined ? {} : { sequence }),
        ...(branchId === undefined ? {} : { branchId }),
        ...(report ? { report } : {}),
      };
    }),
  };
}
