import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { PlanRun } from '../../../src/api/index.ts';
import { RecoveryPlans } from '../../../src/control/acts/plan-acts.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { fillDatabase, makeRoomIn } from '../../support/full-database.ts';
import { jobsIn } from '../../support/jobs-by-hand.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

it('F5 a plan is carried out once at a time, however many ask for it at once', async (t) => {
  const events = new EventHub();
  const alerts = { raise: () => undefined, clear: () => undefined };
  const store = await PlanStore.open(
    { files: nodeFiles, clock: systemClock, alerts, events },
    await temporaryDirectory(t),
  );
  for (const plan of ['shop', 'mail', 'tank']) await store.put({ plan, machines: { db: {} } });
  const { open, runs } = await jobsIn(t);
  const { jobs, close, database } = open();
  t.after(close);
  const plans = new RecoveryPlans({
    ...{ store, events, files: nodeFiles, log: silentLog, siteName: 'north', clock: systemClock, bootClock },
    ...{ random: systemRandom, jobs: () => jobs, inventory: { all: () => [] } },
    failovers: { checkTogether: async () => undefined },
  } as unknown as ConstructorParameters<typeof RecoveryPlans>[0]);
  const run = (plan: string) => plans.run('operator:a', plan, { mode: 'take' });
  const answers = await Promise.allSettled([run('shop'), run('mail'), run('shop')]);
  assert.deepEqual(
    answers.map((answer) => (answer.status === 'fulfilled' ? 'begun' : answer.reason.code)),
    ['begun', 'begun', 'PLAN_RUNS_ALREADY'],
  );
  assert.equal(runs.length, 2);
  const [, first] = store.runs;
  assert.deepEqual([first!.document.plan, first!.endedAtMs], ['shop', undefined]);
  // Its process was killed before the run was told its job, which the next process carries out.
  await store.changeRun(first!.runId, ({ jobId: _unknown, ...left }) => left);
  await assert.rejects(run('shop'), { code: 'PLAN_RUNS_ALREADY' });
  // Nobody carries it out any more.
  runs[0]!.fail(new Error('it broke'));
  await jobs.endOf(runs[0]!.context.jobId, new AbortController().signal);
  await run('shop');
  assert.equal(store.needRun(first!.runId).verdict, 'cancelled');
  // Of one for whose job there is no room nothing stays, however often it is tried.
  const before = store.runs.length;
  fillDatabase(database);
  runs[1]!.finish('long'.repeat(10_000));
  await jobs.endOf(runs[1]!.context.jobId, new AbortController().signal);
  for (let tries = 0; tries < 2; tries++) await assert.rejects(run('tank'), { code: 'SITE_DATABASE_FULL' });
  assert.equal(store.runs.length, before);
  makeRoomIn(database);
  await run('tank');
  // Of a run that was recorded, and whose process was killed before its job was, nothing stays either.
  const { run: kept } = await run('mail');
  await store.addRun({ ...kept, runId: 'killed', jobId: undefined } as unknown as PlanRun);
  await plans.dropUnbegun();
  assert.deepEqual(
    [store.runs.some(({ runId }) => runId === 'killed'), store.needRun(kept.runId).runId],
    [false, kept.runId],
  );
});
