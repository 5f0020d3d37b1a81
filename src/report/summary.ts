import type { Report, ReportKind } from '../api/index.ts';
import { formatDuration } from '../lib/duration-text.ts';

const TITLES: Readonly<Record<ReportKind, string>> = {
  test: 'Test failover',
  drill: 'Drill',
  unplanned: 'Unplanned failover',
  take: 'Planned failover, taken over',
  cede: 'Planned failover, handed over',
  restart: 'Restart of a branch',
  forward: 'Branch gone forward',
  adopt: 'Adoption',
  undo: 'Failover undone',
  plan: 'Recovery plan',
};

export function titleOf({ kind, machine, plan }: Report): string {
  return `${TITLES[kind]}: ${plan?.name ?? machine?.name ?? 'unknown machine'}`;
}

/** The report in one paragraph. */
export function summaryOf(report: Report): string {
  return [whatHappened(report), figures(report), whoSaid(report)].filter((part) => part !== '').join(' ');
}

function whatHappened(report: Report): string {
  const { kind, verdict, machine, plan, attempts, site, request, failure } = report;
  const by = request.onBehalfOf ?? request.actor;
  if (plan) {
    const done = plan.steps.filter(({ state }) => state === 'done').length;
    return `${by} had the plan ${plan.name} carried out at site ${site.name} (${plan.mode}): ${done} of ${plan.steps.length} machines are as the plan wants them.`;
  }
  const name = machine?.name ?? 'the machine';
  if (verdict === 'failed' && attempts.length === 0 && failure)
    return `${by} asked for it; nothing came up: ${failure.message}.`;
  if (verdict === 'cancelled')
    return `${by} asked for it, and it was cancelled before it had come to its end.`;
  if (verdict === 'interrupted') return `${by} asked for it, and the site ended while it was under way.`;
  if (kind === 'cede')
    return `${by} handed ${name} over: its guest had ended, and the other site had acknowledged all that it wrote.`;
  if (kind === 'adopt')
    return `${by} made what a failover had brought up the machine ${name} itself, at home at site ${site.name} from then on.`;
  if (kind === 'undo')
    return `${by} had ended at site ${site.name} what failovers of ${name} had brought up there, and gave the machine up to the site where it was; what was written meanwhile is kept in branches.`;
  const point = attempts.at(-1)?.point;
  const tries = attempts.length === 1 ? '' : `, after ${attempts.length - 1} that did not come up`;
  const how = isRehearsal(report) ? 'was booted in isolation' : 'was booted';
  const answer = {
    passed: 'and the guest answered all that it was asked',
    unproven: 'and nothing was asked of the guest',
    failed: 'and did not come up as it should',
    partly: '',
  }[verdict];
  return `${by === 'site' ? 'By itself, without being asked' : `At the word of ${by}`}: point ${point?.sequence ?? '?'} of ${name} ${how} at site ${site.name}${tries}, ${answer}.`;
}

function figures(report: Report): string {
  const { rtoMs, rpo, plan } = report;
  const parts = [
    ...(rtoMs === undefined
      ? []
      : [
          `it took ${formatDuration(rtoMs)} from the command ${plan ? 'until the last machine was up' : 'to the last answer'}`,
        ]),
    ...(rpo === undefined ? [] : [lossText(rpo, isRehearsal(report))]),
  ];
  return parts.length === 0 ? '' : `${parts.join('; ').replace(/^./, (first) => first.toUpperCase())}.`;
}

function lossText({ basis, ms }: NonNullable<Report['rpo']>, isRehearsed: boolean): string {
  if (basis === 'nothing-lost') return 'nothing that the machine wrote is missing';
  return isRehearsed
    ? `what was written in the last ${formatDuration(ms)} before would have been missing`
    : `what was written in the last ${formatDuration(ms)} before is missing at most`;
}

function whoSaid({ confirmations }: Report): string {
  const word = confirmations.find(({ what }) => what === 'other-side-down');
  if (word) return `${word.by} confirmed that the other site was down.`;
  const fenced = confirmations.find(({ what }) => what === 'fenced');
  return fenced ? `The program ${fenced.program} made sure that the other site was down.` : '';
}

/** Nothing was failed over: it was booted in isolation, to see whether it comes up. */
export function isRehearsal({ kind, plan }: Pick<Report, 'kind' | 'plan'>): boolean {
  return kind === 'test' || kind === 'drill' || plan?.mode === 'test';
}
