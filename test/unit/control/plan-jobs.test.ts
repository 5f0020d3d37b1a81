/** Runs of plans over the jobs of their site, which a process before has left. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { BranchView, PlanRun } from '../../../src/api/index.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import type { JobHandler, JobKind, JobRecorder } from '../../../src/control/base/jobs.ts';
import { touchedNow } from '../../../src/control/plans/absence.ts';
import { actorOf, type PlanActs, PlanRunner } from '../../../src/control/plans/plan-runner.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { jobsIn } from '../../support/jobs-by-hand.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const START = { kind: 'failover.start', args: {}, machineId: 'm' } as const;

/** A run of one machine, begun by a process that was killed while the machine's job ran. */
async function leftRun(t: CleanUp, o: { readonly branches?: readonly Partial<BranchView>[] } = {}) {
  const events = new EventHub();
  const store = await PlanStore.open(
    {
      ...{ files: nodeFiles, clock: systemClock, events },
      alerts: { raise: () => undefined, clear: () => undefined },
    },
    await temporaryDirectory(t),
  );
  const { open, runs } = await jobsIn(t);
  const killed = open();
  t.after(() => killed.close());
  const runId = newId(systemClock, systemRandom);
  const beganAtMs = systemClock.wallMs();
  const own = killed.jobs.start({
    ...{ kind: 'plan.run', args: { runId }, actor: 'operator:a', machineId: 'shop' },
  });
  const { jobId } = killed.jobs.start({ ...START, actor: actorOf({ runId }) });
  const now = touchedNow({ clock: systemClock, bootClock });
  await store.addRun({
    ...{ runId, jobId: own.jobId, actor: 'operator:a', startedAtMs: beganAtMs },
    ...{ request: { mode: 'unplanned' }, document: { plan: 'shop', machines: { db: {} } } },
    steps: [{ machine: 'db', machineId: 'm', state: 'starting', jobId, beganAtMs, formerBranchIds: ['old'] }],
    ...{ ...now, touchedInBoot: { ...now.touchedInBoot, bootId: 'before the power cut' } },
  });
  const done: string[] = [];
  /** The next process, with the same records. */
  const reopen = (recorder?: JobRecorder) => {
    const begin = (what: string) => {
      done.push(what);
      return next.jobs.start({ ...START, actor: actorOf({ runId }) });
    };
    const acts: PlanActs = {
      openTest: async () => undefined,
      closeTest: async () => undefined,
      hooks: { run: async () => undefined },
      idOf: () => 'm',
      isSo: async () => undefined,
      begin: async () => begin('begin'),
      branches: async () =>
        (o.branches ?? []).map(
          (branch) => ({ branchId: 'own', createdAtMs: beganAtMs, ...branch }) as BranchView,
        ),
      objection: async () => undefined,
      restart: (_run, _machine, branchId) => begin(`restart ${branchId}`),
    };
    const tools = { store, acts, events, clock: systemClock, bootClock, log: silentLog };
    const runner = new PlanRunner({ ...tools, jobs: () => next.jobs }, runId);
    const handler: JobHandler = {
      ...{ repeatable: true, waits: true },
      run: async (job) => {
        // It is begun while the jobs are being opened, and `next` is not there before they are.
        await Promise.resolve();
        return runner.carryOut(job);
      },
    };
    const own: Partial<Record<JobKind, JobHandler>> = { 'plan.run': handler };
    const next = open(recorder, own);
    t.after(() => next.close());
    return { ...next, runner };
  };
  /** The run as soon as that is so of it. */
  const when = (isSo: (run: PlanRun) => boolean): Promise<PlanRun> => {
    const { promise, resolve } = Promise.withResolvers<PlanRun>();
    const look = () => {
      if (isSo(store.needRun(runId))) resolve(store.needRun(runId));
    };
    const unlisten = events.listen(look);
    look();
    return promise.finally(unlisten);
  };
  return { runs, done, reopen, when };
}

describe('a run of a plan whose process was killed', () => {
  it('F5 asks for a machine whose job is still being ended when the run goes on, and begins nothing before', async (t) => {
    for (const [branches, act] of [
      [[], 'begin'],
      [[{ running: false, state: 'stopped' }], 'restart own'],
    ] as const) {
      const { reopen, when, done, runs } = await leftRun(t, { branches });
      const recording = Promise.withResolvers<void>();
      const kept = Promise.withResolvers<void>();
      const { runner } = reopen({
        wants: (kind) => kind === 'failover.start',
        record: () => {
          recording.resolve();
          return kept.promise;
        },
      });
      await recording.promise;
      // The run does what it does while the report of the job is written.
      for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate);
      kept.resolve();
      const asked = await when(({ steps }) => steps[0]!.state === 'asking' || done.length > 0);
      assert.deepEqual(done, []);
      assert.match(asked.steps[0]!.reason!, /was started again .*: is the other one still down\?/);
      assert.ok(await runner.approve('db', 'operator:b'));
      await when(() => done.length > 0);
      assert.deepEqual(done, [act]);
      runs.at(-1)!.finish({ verdict: 'passed' });
      assert.equal((await when(({ endedAtMs }) => endedAtMs !== undefined)).verdict, 'done');
    }
  });

  it('F5 that is left again while it waits for such a job still knows of its absence', async (t) => {
    const { reopen, when, done } = await leftRun(t);
    const recording = Promise.withResolvers<void>();
    const kept = Promise.withResolvers<void>();
    const wants = (kind: JobKind) => kind === 'failover.start';
    const record = () => {
      recording.resolve();
      return kept.promise;
    };
    const { close } = reopen({ wants, record });
    await recording.promise;
    for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate);
    const closed = close();
    kept.resolve();
    await closed;
    assert.deepEqual(done, []);
    reopen();
    const asked = await when(({ steps }) => steps[0]!.state === 'asking' || done.length > 0);
    assert.deepEqual([done, asked.steps[0]!.state], [[], 'asking']);
  });
});
