/** The table of a run's steps in docs/failover.md against what is stored of runs. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { test } from 'node:test';
import type { JobView, PlanRun, RunStep } from '../../../src/api/index.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { touchedNow } from '../../../src/control/plans/absence.ts';
import { type PlanActs, PlanRunner } from '../../../src/control/plans/plan-runner.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { STEP_STATES, type StepAct } from '../../../src/plan/index.ts';
import { waysOf } from '../../support/state-ways.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const ALERTS = { raise: () => undefined, clear: () => undefined, clearMachine: () => undefined } as never;
const HOUR_MS = 3_600_000;
const id = () => newId(systemClock, systemRandom);

function step(machine: string, state: RunStep['state'] = 'waiting', more: Partial<RunStep> = {}): RunStep {
  return { machine, machineId: machine, state, ...more };
}

function actOf(before: RunStep, after: RunStep, mode: PlanRun['request']['mode']): StepAct {
  if (after.state === 'asking') return 'ask';
  if (after.state === 'starting') return 'begin';
  if (after.state === 'blocked') return 'block';
  if (after.state !== 'waiting') return 'end';
  if (before.state === 'asking' && after.approvedBy !== undefined) return 'approve';
  return mode === 'test' ? 'begin anew' : 'ask again';
}

/** Carries a run out to its end; what becomes of its steps, as that is stored. Whoever is asked says yes, unless a hook before it fails. */
async function waysOfRun(
  t: CleanUp,
  o: Pick<PlanRun, 'steps'> & {
    readonly mode: PlanRun['request']['mode'];
    readonly machines: PlanRun['document']['machines'];
    readonly touchedAtMs?: number;
    /** Machines that do not come up. */
    readonly down?: readonly string[];
    readonly isHindered?: boolean;
  },
): Promise<string[]> {
  const { mode, machines, steps, down = [], isHindered = false } = o;
  const ways: string[] = [];
  let known = new Map(steps.map((one) => [one.machine, one]));
  const rename: typeof nodeFiles.rename = async (from, to) => {
    await nodeFiles.rename(from, to);
    if (basename(dirname(to)) !== 'plan-runs') return;
    const run: PlanRun = JSON.parse(await readFile(to, 'utf8'));
    for (const after of run.steps) {
      const before = known.get(after.machine)!;
      if (before.state !== after.state || before.asks !== after.asks)
        ways.push(`${before.state} –${actOf(before, after, mode)}→ ${after.state}`);
    }
    known = new Map(run.steps.map((one) => [one.machine, one]));
  };
  const tools = { clock: systemClock, events: new EventHub(), alerts: ALERTS };
  const files = { ...nodeFiles, rename };
  const store = await PlanStore.open({ ...tools, files }, await temporaryDirectory(t));
  const runId = id();
  const now = touchedNow({ clock: systemClock, bootClock });
  await store.addRun({
    ...{
      runId,
      actor: 'operator:a',
      startedAtMs: systemClock.wallMs(),
      request: { mode },
      steps: [...steps],
    },
    document: { plan: 'shop', machines },
    ...{ ...now, touchedAtMs: o.touchedAtMs ?? now.touchedAtMs },
  });
  const jobs = new Map<string, JobView>();
  const begin = async (_run: PlanRun, machine: string) => {
    const result = { verdict: down.includes(machine) ? 'failed' : 'passed' };
    const job = { jobId: id(), machineId: machine, state: 'done', result } as JobView;
    jobs.set(job.jobId, job);
    return job;
  };
  const acts = {
    ...{ openTest: async () => undefined, closeTest: async () => undefined, isSo: async () => undefined },
    ...{ idOf: (machine: string) => machine, branches: async () => [], begin },
    hooks: { run: async () => (isHindered ? 'a hook has failed' : undefined) },
  } as unknown as PlanActs;
  const found = {
    ...{ find: (jobId: string) => jobs.get(jobId), newestOf: () => undefined, cancel: () => undefined },
    ...{
      endOf: async (jobId: string) => jobs.get(jobId),
      waitFor: async (jobId: string) => jobs.get(jobId)!,
    },
  };
  const runner = new PlanRunner(
    { ...tools, store, acts, bootClock, log: silentLog, jobs: () => found },
    runId,
  );
  const { signal } = new AbortController();
  const about = { jobId: id(), machineId: 'shop', args: {}, signal, progress: () => undefined };
  const carriedOut = runner.carryOut(about);
  while (!isHindered && store.needRun(runId).endedAtMs === undefined) {
    for (const machine of Object.keys(machines)) await runner.approve(machine, 'operator:b');
    await new Promise(setImmediate);
  }
  await carriedOut;
  return ways;
}

test('F5 the table of a run’s steps in docs/failover.md is what becomes of them, all of it', async (t) => {
  const awaited = { tier: 2, approval: 'Is the licence server up?' };
  const ways = await Promise.all([
    waysOfRun(t, {
      ...{ mode: 'take', down: ['db'] },
      machines: { db: {}, mail: {}, app: { after: ['db'] }, web: awaited, log: { approval: 'Now?' } },
      steps: [step('db'), step('mail'), step('app'), step('web'), step('log')],
    }),
    // What is run before the first machine fails: nothing is begun.
    waysOfRun(t, {
      ...{ mode: 'take', isHindered: true },
      machines: { db: {}, log: { approval: 'Now?' }, web: { tier: 2 } },
      steps: [step('db'), step('log'), step('web')],
    }),
    waysOfRun(t, {
      mode: 'test',
      machines: { db: {}, mail: {}, app: {}, web: {} },
      steps: [step('db', 'done'), step('mail', 'failed'), step('app', 'blocked'), step('web', 'starting')],
    }),
    waysOfRun(t, {
      ...{ mode: 'unplanned', touchedAtMs: systemClock.wallMs() - HOUR_MS },
      machines: { db: {}, mail: { approval: 'Now?' }, app: {} },
      steps: [step('db'), step('mail', 'asking'), step('app', 'starting', { formerBranchIds: [] })],
    }),
  ]);
  assert.deepEqual([...new Set(ways.flat())].sort(), waysOf(STEP_STATES));
});
