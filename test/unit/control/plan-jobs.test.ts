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

const ABOUT = { args: {}, machineId: 'm' } as const;

/** A run of one machine, begun by a process that was killed while the machine's job ran. */
async function leftRun(
  t: CleanUp,
  o: {
    readonly branches?: readonly Partial<BranchView>[];
    readonly mode?: 'unplanned' | 'cede';
    /** Whether its step says which job was begun for it. */
    readonly isNamed?: boolean;
  } = {},
) {
  const events = new EventHub();
  const store = await PlanStore.open(
    {
      ...{ files: nodeFiles, clock: systemClock, events },
      alerts: { raise: () => undefined, clear: () => undefined },
    },
    await temporaryDirectory(t),
  );
  const { open, runs, hang } = await jobsIn(t);
  const { mode = 'unplanned', isNamed = true } = o;
  const kind = mode === 'cede' ? 'failover.cede' : 'failover.start';
  const killed = open();
  t.after(() => killed.close());
  const runId = newId(systemClock, systemRandom);
  const beganAtMs = systemClock.wallMs();
  const own = killed.jobs.start({
    ...{ kind: 'plan.run', args: { runId }, actor: 'operator:a', machineId: 'shop' },
  });
  const { jobId } = killed.jobs.start({ ...ABOUT, kind, actor: actorOf({ runId }) });
  const now = touchedNow({ clock: systemClock, bootClock });
  await store.addRun({
    ...{ runId, jobId: own.jobId, actor: 'operator:a', startedAtMs: beganAtMs },
    ...{ request: { mode }, document: { plan: 'shop', machines: { db: {} } } },
    steps: [
      {
        ...{ machine: 'db', machineId: 'm', state: 'starting', beganAtMs, formerBranchIds: ['old'] },
        ...(isNamed ? { jobId } : {}),
      },
    ],
    ...{ ...now, touchedInBoot: { ...now.touchedInBoot, bootId: 'before the power cut' } },
  });
  const done: string[] = [];
  /** The next process, with the same records. */
  const reopen = (recorder?: JobRecorder) => {
    const begin = (what: string) => {
      done.push(what);
      return next.jobs.start({ ...ABOUT, kind, actor: actorOf({ runId }) });
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
      isHeld: () => true,
      restart: async (_run, _machine, branchId) => begin(`restart ${branchId}`),
    };
    const tools = { store, acts, events, clock: systemClock, bootClock, log: silentLog };
    const runner = new PlanRunner({ ...tools, jobs: () => next.jobs }, runId);
    const handler: JobHandler = {
      ...{ repeatable: true, unwinds: true, waits: true },
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
  return { runs, done, reopen, when, killed, hang, store, runId, jobId, runJobId: own.jobId };
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

  it('F5 that was cancelled ends as cancelled, with what it had begun, and begins nothing', async (t) => {
    for (const o of [{ mode: 'unplanned' }, { mode: 'cede' }, { mode: 'cede', isNamed: false }] as const) {
      const { jobId, runJobId, killed, reopen, when, done, runs, hang } = await leftRun(t, o);
      hang();
      killed.jobs.cancel(runJobId);
      // Killed before the run has come to cancelling the jobs of its machines.
      hang(false);
      const before = runs.length;
      const { jobs } = reopen();
      const run = await when(({ endedAtMs }) => endedAtMs !== undefined);
      assert.deepEqual([run.verdict, run.steps[0]!.state, done], ['cancelled', 'failed', []]);
      const { signal } = new AbortController();
      const [ofRun, ofMachine] = await Promise.all([jobs.endOf(runJobId, signal), jobs.endOf(jobId, signal)]);
      assert.equal(ofRun!.state, 'cancelled');
      assert.equal(ofMachine!.failure!.code, o.mode === 'cede' ? 'CANCELLED' : 'JOB_INTERRUPTED');
      for (const { fail } of runs.slice(0, before)) fail(new Error('killed'));
    }
  });

  it('F5 whose cancelling was on record before its job had ended is not done once more', async (t) => {
    const { runJobId, killed, reopen, when, store, runId, hang, runs } = await leftRun(t);
    hang();
    killed.jobs.cancel(runJobId);
    await store.changeRun(runId, (run) => ({ ...run, endedAtMs: 1, verdict: 'cancelled' }));
    const { jobs } = reopen();
    const ended = await jobs.endOf(runJobId, new AbortController().signal);
    assert.equal(ended!.state, 'cancelled');
    assert.equal((await when(() => true)).endedAtMs, 1);
    for (const { fail } of runs) fail(new Error('killed'));
  });
});
