import type { HookOutcome, PlanCheck, PlanEstimate, PlanRun, PlanView, RunStep } from '../../api/index.ts';
import { formatAge, formatDuration, formatTime } from '../format.ts';
import type { Page, Tone } from '../page.ts';

export function printPlans(page: Page, plans: readonly PlanView[], nowMs: number): void {
  if (plans.length === 0) {
    page.line('No plans. Store one with warmsite plan put FILE.');
    return;
  }
  page.table(
    [
      { head: 'NAME' },
      { head: 'VERSION', align: 'right' },
      { head: 'MACHINES', align: 'right' },
      { head: 'STORED' },
      { head: 'WHAT FOR' },
    ],
    plans.map(({ document, storedAtMs, counter, conflict }) => [
      document.plan,
      { text: `${counter}${conflict ? ', changed twice' : ''}`, tone: conflict ? 'warning' : 'plain' },
      String(Object.keys(document.machines).length),
      formatAge(storedAtMs, nowMs),
      document.description ?? '',
    ]),
  );
}

export function printPlan(
  page: Page,
  { document, storedAtMs, counter, conflict }: PlanView,
  nowMs: number,
): void {
  page.title(`Plan ${document.plan}`).fields([
    ['what for', document.description],
    ['version', String(counter)],
    ['stored', formatAge(storedAtMs, nowMs)],
  ]);
  if (conflict) {
    const said = `Site ${conflict.siteId} has changed it too, ${formatAge(conflict.storedAtMs, nowMs)}; from here to there:`;
    page.line({ text: said, tone: 'warning' });
    for (const change of conflict.changes) page.line(`  ${change}`);
  }
  page.table(
    [
      { head: 'MACHINE' },
      { head: 'TIER', align: 'right' },
      { head: 'AFTER' },
      { head: 'GATES' },
      { head: 'ASKS' },
    ],
    Object.entries(document.machines).map(([machine, { tier = 1, after = [], gates, approval = '' }]) => [
      machine,
      String(tier),
      after.join(', '),
      gates ? gates.map(gateOf).join(', ') : 'agent',
      approval,
    ]),
  );
}

function gateOf(gate: NonNullable<PlanView['document']['machines'][string]['gates']>[number]): string {
  switch (gate.kind) {
    case 'agent':
      return 'agent';
    case 'serial':
      return `serial ${gate.pattern}`;
    case 'tcp':
      return `tcp ${gate.host}:${gate.port}`;
    case 'http':
      return `http ${gate.url}`;
    case 'guest':
      return `guest ${gate.command}`;
    case 'sql':
      return `sql ${gate.system}`;
    case 'script':
      return `script ${gate.program}`;
  }
}

export function printCheck(page: Page, { plan, order, findings, changes }: PlanCheck): void {
  page.title(`Plan ${plan}`);
  page.fields(order.map((machines, index) => [`${index + 1}.`, machines.join(', ')]));
  for (const { severity, message } of findings) {
    page.line({ text: `${severity}: ${message}`, tone: severity === 'error' ? 'bad' : 'warning' });
  }
  if (findings.length === 0) page.line({ text: 'Nothing is wrong with it.', tone: 'good' });
  for (const change of changes ?? []) page.line(change);
}

export function printEstimate(page: Page, { plan, totalMs, machines }: PlanEstimate): void {
  const durationOf = (ms: number | null) => (ms === null ? 'not measured' : formatDuration(ms));
  page.title(`Plan ${plan}`).fields([['all up after', durationOf(totalMs)]]);
  page.table(
    [
      { head: 'MACHINE' },
      { head: 'BEGINS', align: 'right' },
      { head: 'TAKES', align: 'right' },
      { head: 'UP', align: 'right' },
    ],
    machines.map(({ machine, measuredMs, beginsAtMs, upAtMs }) => [
      machine,
      durationOf(beginsAtMs),
      durationOf(measuredMs),
      durationOf(upAtMs),
    ]),
  );
  if (totalMs === null)
    page.line('What was never booted in isolation has not been measured: warmsite plan run --test');
}

const TONES: Readonly<Record<RunStep['state'], Tone>> = {
  waiting: 'plain',
  asking: 'warning',
  starting: 'plain',
  done: 'good',
  failed: 'bad',
  blocked: 'warning',
};

export function printRuns(page: Page, runs: readonly PlanRun[], nowMs: number): void {
  if (runs.length === 0) {
    page.line('No plan has been carried out here.');
    return;
  }
  page.table(
    [
      { head: 'RUN' },
      { head: 'PLAN' },
      { head: 'HOW' },
      { head: 'BEGAN' },
      { head: 'TOOK', align: 'right' },
      { head: 'END' },
    ],
    runs.map(({ runId, document, request, startedAtMs, endedAtMs, verdict }) => [
      runId,
      document.plan,
      request.mode,
      formatAge(startedAtMs, nowMs),
      endedAtMs === undefined ? '' : formatDuration(endedAtMs - startedAtMs),
      verdict ?? 'under way',
    ]),
  );
}

export function printRun(page: Page, run: PlanRun): void {
  const { runId, document, request, startedAtMs, endedAtMs, verdict, actor } = run;
  page.title(`Run of plan ${document.plan}`).fields([
    ['id', runId],
    ['how', request.mode],
    ['asked by', actor],
    ['began', formatTime(startedAtMs)],
    ['took', endedAtMs === undefined ? 'under way' : formatDuration(endedAtMs - startedAtMs)],
    ['end', verdict && { text: verdict, tone: verdict === 'done' ? 'good' : 'bad' }],
  ]);
  page.table(
    [
      { head: 'MACHINE' },
      { head: 'STATE' },
      { head: 'BEGAN', align: 'right' },
      { head: 'TOOK', align: 'right' },
      { head: 'POINT', align: 'right' },
      { head: 'WHY' },
    ],
    run.steps.map((step) => [
      step.machine,
      { text: step.state, tone: TONES[step.state] },
      step.beganAtMs === undefined ? '' : formatDuration(step.beganAtMs - startedAtMs),
      step.beganAtMs === undefined || step.endedAtMs === undefined
        ? ''
        : formatDuration(step.endedAtMs - step.beganAtMs),
      step.sequence === undefined ? '' : String(step.sequence),
      step.reason ?? '',
    ]),
  );
  for (const { machine, hooks } of [{ machine: 'the run', hooks: run.hooks }, ...run.steps]) {
    for (const hook of hooks ?? []) printHook(page, machine, hook);
  }
  for (const { machine, state } of run.steps) {
    if (state === 'asking') page.line(`Say yes: warmsite plan approve ${runId} ${machine}`);
  }
}

function printHook(
  page: Page,
  machine: string,
  { when, program, outcome, tookMs, output }: HookOutcome,
): void {
  const isFine = outcome === 'passed';
  const said = isFine ? '' : `: ${(output ?? '').trim().split('\n')[0]!.slice(0, 200)}`;
  const text = `${when} ${machine}: ${program} ${outcome}, ${formatDuration(tookMs)}${said}`;
  page.line({ text, tone: isFine ? 'plain' : 'bad' });
}
