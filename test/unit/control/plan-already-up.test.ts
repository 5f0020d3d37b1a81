/** What a run of a plan finds running: of which it is on record that it has come up, and of which it is not. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { BranchView, JobView, PlanRun } from '../../../src/api/index.ts';
import { RecoveryPlans } from '../../../src/control/acts/plan-acts.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const id = () => newId(systemClock, systemRandom);
const GATES = [{ kind: 'tcp', host: '10.0.0.5', port: 5432 }] as const;

/**
 * Carries a plan of one machine out, without the other site; `answers`: whether its guest answers its gates when it is asked again; `isTaken`: another
 * site claims the machine meanwhile.
 */
async function carriedOut(
  t: CleanUp,
  o: { readonly branch: Partial<BranchView>; readonly answers?: boolean; readonly isTaken?: boolean },
) {
  const alerts = { raise: () => undefined, clear: () => undefined };
  const events = new EventHub();
  const store = await PlanStore.open(
    { files: nodeFiles, clock: systemClock, alerts, events },
    await temporaryDirectory(t),
  );
  await store.put({ plan: 'shop', machines: { db: { gates: [...GATES] } } });
  const done: unknown[] = [];
  const machine = {
    machineId: id(),
    name: 'db',
    home: undefined,
    replica: { newest: undefined, record: { epoch: 2, tenure: undefined as unknown } },
  };
  const branch = { branchId: id(), purpose: 'failover', running: true, sequence: 7, ...o.branch };
  const job: JobView = {
    ...{ jobId: id(), kind: 'failover.start', state: 'done', machineId: machine.machineId, args: {} },
    ...{ actor: 'x', createdAtMs: 0, progress: {}, result: { verdict: 'passed' } },
  };
  const jobs = {
    start: () => ({ ...job, kind: 'plan.run' }),
    find: () => job,
    newestOf: () => undefined,
    endOf: async () => job,
    waitFor: async () => job,
    cancel: () => undefined,
  };
  const failovers = {
    list: async () => [branch],
    probeAgain: async (_machine: string, branchId: string, probes: unknown) => {
      done.push(['ask', branchId, probes]);
      if (o.isTaken) machine.replica.record.tenure = { state: 'fenced' };
      return [{ probe: GATES[0], passed: o.answers, durationMs: 1, ...(o.answers ? {} : { reason: 'no' }) }];
    },
    start: async () => {
      done.push('start');
      return job;
    },
    checkTogether: async () => undefined,
    hasWitness: () => false,
  };
  const plans = new RecoveryPlans({
    ...{ store, events, files: nodeFiles, log: silentLog, siteName: 'north', clock: systemClock, bootClock },
    ...{ random: systemRandom, jobs: () => jobs, failovers, audit: {}, groups: {}, handovers: {} },
    inventory: { all: () => [machine], find: () => machine },
    programs: { lackOf: async () => undefined },
  } as unknown as ConstructorParameters<typeof RecoveryPlans>[0]);
  const { run } = await plans.run('operator:a', 'shop', { mode: 'unplanned', confirmOtherSideDown: true });
  const { signal } = new AbortController();
  const about = { jobId: job.jobId, machineId: 'shop', args: { runId: run.runId } };
  const ended = await plans.handlers['plan.run'].run({ ...about, signal, progress: () => undefined });
  const [step] = (ended as PlanRun).steps;
  return { step: step!, done, branchId: branch.branchId };
}

it('F5 a machine that runs, and of which nobody recorded that it has come up, is asked its gates and not begun', async (t) => {
  const up = await carriedOut(t, { branch: { state: 'started' }, answers: true });
  assert.deepEqual(
    [up.step.state, up.step.branchId, up.step.sequence, up.step.reason],
    ['done', up.branchId, 7, 'it was so before the run came to it'],
  );
  assert.deepEqual(up.done, [['ask', up.branchId, GATES]]);
  const silent = await carriedOut(t, { branch: { state: 'started' }, answers: false });
  assert.deepEqual([silent.step.state, silent.step.reason], ['failed', 'it runs, and does not answer: no']);
  assert.deepEqual(silent.done.length, 1);
  for (const answers of [true, false]) {
    const taken = await carriedOut(t, { branch: { state: 'started' }, answers, isTaken: true });
    assert.deepEqual([taken.step.state, taken.step.reason], ['failed', 'another site holds it']);
  }
  const known = await carriedOut(t, { branch: { state: 'probed' } });
  assert.deepEqual([known.step.state, known.done], ['done', []]);
  for (const branch of [{ state: 'failed' }, { state: 'stopped', running: false }] as const) {
    const begun = await carriedOut(t, { branch });
    assert.deepEqual([begun.step.state, begun.done], ['done', ['start']]);
    assert.deepEqual(begun.step.formerBranchIds, [begun.branchId]);
  }
});
