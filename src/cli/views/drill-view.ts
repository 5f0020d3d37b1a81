import type { DrillMachineView, DrillPolicyView, DrillStatusView, DrillView } from '../../api/index.ts';
import { formatAge, formatBytes, formatDuration, formatTime } from '../format.ts';
import type { Page, Tone } from '../page.ts';
import { windowWords } from './policy-view.ts';

const STATES: Readonly<Record<DrillMachineView['state'], Tone>> = {
  proven: 'good',
  running: 'plain',
  waiting: 'plain',
  failing: 'bad',
  'too-large': 'warning',
  'nothing-to-ask': 'warning',
  'none-meant': 'warning',
  unproven: 'warning',
};

export function printDrillStatus(page: Page, status: DrillStatusView, nowMs: number): void {
  const { budget, usedBytes, isPaused, quietUntilMs, givesWay, machines } = status;
  page.title('Drills').fields([
    ['memory', `${formatBytes(budget.memoryBytes)}, ${formatBytes(usedBytes)} of it in use`],
    ['at once', String(budget.atOnce)],
    ['CPU time', budget.cpuPercent === undefined ? 'not limited' : `${budget.cpuPercent}% of one CPU`],
    ['CPU weight', budget.cpuWeight === undefined ? undefined : String(budget.cpuWeight)],
    ['quiet', budget.quiet.length === 0 ? undefined : budget.quiet.map(windowWords).join('; ')],
    ['none before', quietUntilMs === undefined ? undefined : formatTime(quietUntilMs)],
    ['paused', isPaused ? { text: 'all', tone: 'warning' } : undefined],
    ['waiting for', givesWay ? 'the end of a failover' : undefined],
  ]);
  if (machines.length === 0) {
    page.line('No machine is drilled. Begin with warmsite drill policy --on, or name a machine.');
    return;
  }
  page.table(
    [
      { head: 'MACHINE' },
      { head: 'STATE' },
      { head: 'PROVEN', align: 'right' },
      { head: 'WHEN' },
      { head: 'RTO', align: 'right' },
      { head: 'WAITING', align: 'right' },
      { head: 'PROOF DUE' },
      { head: 'WHY' },
    ],
    machines.map(({ name, state, newestProven, waiting, isOverdue, isPaused: paused, dueAtMs, reason }) => [
      name,
      { text: paused ? `${state}, paused` : state, tone: STATES[state] },
      newestProven ? String(newestProven.sequence) : '',
      newestProven ? formatAge(newestProven.provenAtMs, nowMs) : '',
      typeof newestProven?.rtoMs === 'number' ? formatDuration(newestProven.rtoMs) : '',
      waiting > 0 ? String(waiting) : '',
      dueAtMs === undefined ? '' : { text: formatAge(dueAtMs, nowMs), tone: isOverdue ? 'bad' : 'plain' },
      reason ?? '',
    ]),
  );
}

const OUTCOMES: Readonly<Record<DrillView['outcome'], Tone>> = {
  queued: 'plain',
  running: 'plain',
  passed: 'good',
  failed: 'bad',
  refuted: 'bad',
  unproven: 'warning',
  hindered: 'warning',
  interrupted: 'warning',
  cancelled: 'faint',
  'gave-way': 'faint',
};

export function printDrills(page: Page, drills: readonly DrillView[], nowMs: number): void {
  if (drills.length === 0) {
    page.line('No point of it has been drilled.');
    return;
  }
  page.table(
    [
      { head: 'POINT', align: 'right' },
      { head: 'OUTCOME' },
      { head: 'BEGAN' },
      { head: 'TOOK', align: 'right' },
      { head: 'RTO', align: 'right' },
      { head: 'BY' },
      { head: 'WHY' },
      { head: 'JOB' },
    ],
    drills.map(({ sequence, outcome, startedAtMs, endedAtMs, rtoMs, actor, reason, jobId }) => [
      String(sequence),
      { text: outcome, tone: OUTCOMES[outcome] },
      startedAtMs === undefined ? '' : formatAge(startedAtMs, nowMs),
      startedAtMs === undefined || endedAtMs === undefined ? '' : formatDuration(endedAtMs - startedAtMs),
      rtoMs === undefined ? '' : formatDuration(rtoMs),
      actor,
      reason ?? '',
      jobId,
    ]),
  );
}

export function printDrillPolicy(
  page: Page,
  machine: string | undefined,
  { policy, from }: DrillPolicyView,
): void {
  const whose = machine === undefined ? 'machines without a policy of their own' : machine;
  if (!policy) {
    page.line(`No point of ${whose} is drilled by itself.`);
    return;
  }
  const { copyTypes, others, proveWithinMs, probes, memoryBytes } = policy;
  page.title(`Drills of ${whose}`).fields([
    ['points', copyTypes ? `each of type ${copyTypes.join(' or ')}` : 'each application-consistent one'],
    ['others', others && othersWords(others)],
    ['proof within', formatDuration(proveWithinMs)],
    ['probes', probes ? String(probes.length) : undefined],
    ['memory', memoryBytes === undefined ? undefined : formatBytes(memoryBytes)],
    ['as for', from === 'site' && machine !== undefined ? 'all machines of this site' : undefined],
  ]);
}

function othersWords({
  everyPoints,
  everyMs,
}: NonNullable<NonNullable<DrillPolicyView['policy']>['others']>): string {
  return [
    'the newest',
    ...(everyPoints === undefined ? [] : [`after ${everyPoints} points`]),
    ...(everyMs === undefined ? [] : [`no more often than every ${formatDuration(everyMs)}`]),
  ].join(', ');
}
