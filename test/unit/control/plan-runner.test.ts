/** How a run of a plan goes on after its site was away: by what its own steps have made, and by nothing else. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { BranchView, JobView, PlanRun } from '../../../src/api/index.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import { touchedNow } from '../../../src/control/plans/absence.ts';
import { type PlanActs, PlanRunner } from '../../../src/control/plans/plan-runner.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const id = () => newId(systemClock, systemRandom);
const ALERTS = { raise: () => undefined, clear: () => undefined, clearMachine: () => undefined } as never;
const INTERRUPTED = { code: 'JOB_INTERRUPTED', message: 'the site ended' };

function jobOf(jobId: string, change: Partial<JobView>): JobView {
  const about = {
    jobId,
    kind: 'failover.start',
    machineId: 'm',
    args: {},
    actor: 'x',
    createdAtMs: 0,
    progress: {},
  };
  return { ...about, state: 'done', result: { verdict: 'passed' }, ...change } as JobView;
}

/** A run of one machine whose job an earlier process had begun, and what is done about it. */
async function resumed(
  t: CleanUp,
  o: {
    readonly mode?: PlanRun['request']['mode'];
    readonly branches?: readonly Partial<BranchView>[];
    /** The machine of the branches cannot be opened. */
    readonly isUnread?: boolean;
    /** What of the whole test fails. */
    readonly fails?: 'open' | 'close';
    readonly objection?: string;
    /** Another site has taken the machine: while this one was away, or just while the guest is asked its gates. */
    readonly lost?: 'away' | 'asked';
    readonly run?: Partial<PlanRun>;
    readonly step?: Partial<PlanRun['steps'][number]>;
    /** A job of this machine that the run had begun before, and that its step does not name. */
    readonly olderJob?: Partial<JobView>;
  },
) {
  const directory = await temporaryDirectory(t);
  const store = await PlanStore.open(
    { files: nodeFiles, clock: systemClock, alerts: ALERTS, events: new EventHub() },
    directory,
  );
  const [runId, jobId] = [id(), id()];
  const beganAtMs = systemClock.wallMs();
  const formerBranchIds = ['old'];
  await store.addRun({
    ...{ runId, actor: 'operator:a', startedAtMs: beganAtMs, request: { mode: o.mode ?? 'unplanned' } },
    document: { plan: 'shop', machines: { db: {} } },
    steps: [
      { machine: 'db', machineId: 'm', state: 'starting', jobId, beganAtMs, formerBranchIds, ...o.step },
    ],
    ...touchedNow({ clock: systemClock, bootClock }),
    ...o.run,
  });
  const done: string[] = [];
  const jobs = new Map([
    [jobId, jobOf(jobId, { state: 'failed', failure: INTERRUPTED as JobView['failure'] })],
  ]);
  const older = o.olderJob && jobOf(id(), o.olderJob);
  if (older) jobs.set(older.jobId, older);
  const begin = (what: string): JobView => {
    done.push(what);
    const job = jobOf(id(), {});
    jobs.set(job.jobId, job);
    return job;
  };
  const acts: PlanActs = {
    openTest: async () => {
      done.push('open');
      if (o.fails === 'open') throw libFailure('DISK_FULL', 'no space for the network');
    },
    closeTest: async () => {
      done.push('close');
      if (o.fails === 'close') throw libFailure('DISK_FULL', 'it cannot be removed');
    },
    hooks: { run: async () => undefined },
    idOf: () => 'm',
    isSo: async () => undefined,
    begin: async () => begin('begin'),
    branches: async () => {
      if (o.isUnread) throw controlFailure('MACHINE_UNKNOWN', 'this site has no machine db');
      return (o.branches ?? []).map(
        (branch) => ({ createdAtMs: beganAtMs + 1, branchId: 'own', ...branch }) as BranchView,
      );
    },
    objection: async (_run, _machine, branchId) => {
      done.push(`ask ${branchId}`);
      return o.objection;
    },
    isHeld: () => o.lost !== 'away' && !(o.lost === 'asked' && done.includes('ask own')),
    restart: async (_run, _machine, branchId) => begin(`restart ${branchId}`),
  };
  const runner = new PlanRunner(
    {
      ...{ store, acts, events: new EventHub(), clock: systemClock, bootClock, log: silentLog },
      jobs: () => ({
        find: (wanted) => jobs.get(wanted),
        newestOf: () => older,
        endOf: async (wanted) => jobs.get(wanted),
        waitFor: async (wanted) => jobs.get(wanted)!,
        cancel: () => undefined,
      }),
    },
    runId,
  );
  const { signal } = new AbortController();
  const carriedOut = runner.carryOut({
    jobId,
    machineId: 'shop',
    args: {},
    signal,
    progress: () => undefined,
  });
  return { runner, store, runId, done, carriedOut };
}

describe('a run of a plan whose site was away', () => {
  it('F5 asks the guest of a machine that runs, and leaves it running whatever it answers', async (t) => {
    const running = { branchId: 'own', running: true, state: 'started' };
    const good = await resumed(t, { branches: [running] });
    assert.equal((await good.carriedOut).verdict, 'done');
    assert.deepEqual(good.done, ['ask own']);
    const bad = await resumed(t, { branches: [running], objection: 'it is silent' });
    const { steps, verdict } = await bad.carriedOut;
    assert.deepEqual([verdict, steps[0]!.state, steps[0]!.reason], ['failed', 'failed', 'it is silent']);
    const seen = await resumed(t, { branches: [{ ...running, state: 'probed' }] });
    assert.equal((await seen.carriedOut).verdict, 'done');
    assert.deepEqual(seen.done, []);
  });

  it('F5 S0.17 counts nothing as up that runs of a machine which another site has taken meanwhile, and begins nothing for it', async (t) => {
    for (const state of ['started', 'probed'] as const) {
      const lost = await resumed(t, { branches: [{ running: true, state, sequence: 7 }], lost: 'away' });
      const { steps, verdict } = await lost.carriedOut;
      const [{ reason, branchId }] = steps as [PlanRun['steps'][number]];
      assert.deepEqual([verdict, reason, branchId], ['failed', 'another site holds it', 'own']);
      assert.deepEqual(lost.done, []);
    }
    for (const objection of [undefined, 'it is silent']) {
      const branches = [{ running: true, state: 'started' }] as const;
      const late = await resumed(t, { branches, lost: 'asked', ...(objection ? { objection } : {}) });
      const [{ reason, state }] = (await late.carriedOut).steps as [PlanRun['steps'][number]];
      assert.deepEqual([state, reason, late.done], ['failed', 'another site holds it', ['ask own']]);
    }
  });

  it('F5 boots what has ended on its own files, and touches no branch that it has not made', async (t) => {
    const ended = { branchId: 'own', running: false, state: 'stopped' };
    const old = { ...ended, branchId: 'old' };
    const again = await resumed(t, { branches: [old, ended] });
    assert.equal((await again.carriedOut).verdict, 'done');
    assert.deepEqual(again.done, ['restart own']);
    for (const branches of [
      [],
      [old],
      [{ ...old, running: true, state: 'probed' }],
      [{ ...ended, state: 'failed' }],
    ]) {
      const anew = await resumed(t, { branches });
      assert.equal((await anew.carriedOut).verdict, 'done');
      assert.deepEqual(anew.done, ['begin'], JSON.stringify(branches));
    }
  });

  it('F5 knows what it has made whatever the clock has said meanwhile', async (t) => {
    // The clock was set back by an hour before the branch was made, or ahead before there was the older one.
    for (const byMs of [-3_600_000, 3_600_000]) {
      const createdAtMs = systemClock.wallMs() + byMs;
      const own = { branchId: 'own', running: true, state: 'started', createdAtMs };
      const old = { ...own, branchId: 'old', createdAtMs: systemClock.wallMs() + 7_200_000 };
      const made = await resumed(t, { branches: [old, own] });
      assert.equal((await made.carriedOut).verdict, 'done');
      assert.deepEqual(made.done, ['ask own']);
      const ended = await resumed(t, { branches: [old, { ...own, running: false, state: 'stopped' }] });
      assert.equal((await ended.carriedOut).verdict, 'done');
      assert.deepEqual(ended.done, ['restart own']);
    }
    // Of a run that an earlier program has begun the time is all that is known.
    const step = { formerBranchIds: undefined as never };
    const before = { branchId: 'before', running: false, state: 'stopped', createdAtMs: 1 };
    const early = await resumed(t, { branches: [before], step });
    assert.equal((await early.carriedOut).verdict, 'done');
    assert.deepEqual(early.done, ['begin']);
    // What there was is on record before the job is begun.
    const waiting: PlanRun['steps'] = [{ machine: 'db', machineId: 'm', state: 'waiting' }];
    const first = await resumed(t, { branches: [before], run: { steps: waiting } });
    assert.deepEqual((await first.carriedOut).steps[0]!.formerBranchIds, ['before']);
  });

  it('F5 a test that is begun anew takes no older job for its own, whatever the clock has said meanwhile', async (t) => {
    const steps: PlanRun['steps'] = [{ machine: 'db', machineId: 'm', state: 'starting', beganAtMs: 1 }];
    const olderJob = { createdAtMs: systemClock.wallMs() + 3_600_000, state: 'cancelled' } as const;
    const anew = await resumed(t, { mode: 'test', run: { steps }, olderJob });
    assert.equal((await anew.carriedOut).verdict, 'done');
    assert.deepEqual(anew.done, ['open', 'begin', 'close']);
  });

  it('F5 does a test anew, of which the machines went with the site, and removes all of it at the end', async (t) => {
    const jobId = id();
    const document: PlanRun['document'] = { plan: 'shop', machines: { db: {}, web: { tier: 2 } } };
    const beganAtMs = systemClock.wallMs();
    const steps: PlanRun['steps'] = [
      { machine: 'db', machineId: 'm', state: 'done', jobId, beganAtMs, endedAtMs: beganAtMs },
      { machine: 'web', machineId: 'n', state: 'starting', beganAtMs },
    ];
    const anew = await resumed(t, { mode: 'test', run: { document, steps } });
    const run = await anew.carriedOut;
    assert.equal(run.verdict, 'done', JSON.stringify(run));
    assert.deepEqual(anew.done, ['open', 'begin', 'begin', 'close']);
  });

  it('F5 asks a person before it brings machines up on a word that was given long ago', async (t) => {
    const steps = [{ machine: 'db', machineId: 'm', state: 'waiting' as const }];
    const touchedAtMs = systemClock.wallMs() - 3_600_000;
    const stale = await resumed(t, { run: { steps, touchedAtMs } });
    while (!(await stale.runner.approve('db', 'operator:b'))) await new Promise(setImmediate);
    const run = await stale.carriedOut;
    assert.deepEqual([run.verdict, run.steps[0]!.answers![0]!.by], ['done', 'operator:b']);
    assert.deepEqual(stale.done, ['begin']);
    // What had been begun, and has made nothing, is asked for as well; what has made something goes on.
    const begun = await resumed(t, { run: { touchedAtMs } });
    while (!(await begun.runner.approve('db', 'operator:b'))) await new Promise(setImmediate);
    assert.equal((await begun.carriedOut).verdict, 'done');
    assert.deepEqual(begun.done, ['begin']);
    const made = await resumed(t, {
      branches: [{ branchId: 'own', running: true, state: 'probed' }],
      run: { touchedAtMs },
    });
    assert.equal((await made.carriedOut).verdict, 'done');
    assert.deepEqual(made.done, []);
    // To boot again what has ended is to bring it up.
    const ended = await resumed(t, {
      branches: [{ branchId: 'own', running: false, state: 'stopped' }],
      run: { touchedAtMs },
    });
    while (!(await ended.runner.approve('db', 'operator:b'))) await new Promise(setImmediate);
    assert.equal((await ended.carriedOut).verdict, 'done');
    assert.deepEqual(ended.done, ['restart own']);
    const planned = await resumed(t, { mode: 'take', run: { steps, touchedAtMs } });
    assert.equal((await planned.carriedOut).verdict, 'done', 'the offer is word enough');
  });

  it('F5 asks a person for a machine that cannot be opened after an absence, and ends its step alone if it still cannot', async (t) => {
    const touchedAtMs = systemClock.wallMs() - 3_600_000;
    const { runner, carriedOut, done } = await resumed(t, { isUnread: true, run: { touchedAtMs } });
    while (!(await Promise.race([carriedOut, runner.approve('db', 'operator:b')])))
      await new Promise(setImmediate);
    const { verdict, steps } = await carriedOut;
    assert.deepEqual([verdict, steps[0]!.state, done], ['failed', 'failed', []]);
    assert.equal(steps[0]!.reason, 'this site has no machine db');
  });

  it('F5 takes the answer that the other site is down for none to what the plan asks', async (t) => {
    const steps: PlanRun['steps'] = [
      { machine: 'db', machineId: 'm', state: 'waiting', approvedBy: 'operator:early', approvedAtMs: 1 },
    ];
    const document: PlanRun['document'] = {
      plan: 'shop',
      machines: { db: { approval: 'Is it plugged in?' } },
    };
    const touchedAtMs = systemClock.wallMs() - 3_600_000;
    const { runner, carriedOut, done, store, runId } = await resumed(t, {
      run: { steps, document, touchedAtMs },
    });
    const asked = async () => {
      for (;;) {
        const [step] = store.needRun(runId).steps;
        if (step!.state === 'asking') return step!;
        await new Promise(setImmediate);
      }
    };
    const absence = 'this site was away for 60 minutes: is the other one still down?';
    assert.equal((await asked()).reason, absence);
    // Of two who say so at once one has answered; the other one has not said yes to what is asked next.
    const answers = await Promise.all(['operator:b', 'operator:c'].map((by) => runner.approve('db', by)));
    assert.deepEqual(answers, [true, false]);
    const next = await asked();
    assert.deepEqual([next.reason, next.approvedBy, done], ['Is it plugged in?', undefined, []]);
    assert.ok(await runner.approve('db', 'operator:d'));
    const [step] = (await carriedOut).steps;
    assert.deepEqual([step!.approvedBy, done], ['operator:d', ['begin']]);
    assert.deepEqual(
      step!.answers!.map(({ question, by }) => [question, by]),
      [
        [absence, 'operator:b'],
        ['Is it plugged in?', 'operator:d'],
      ],
    );
  });

  it('F5 asks a person whenever nobody can say how long it was away, and not after a moment', async (t) => {
    const { touchedAtMs, touchedInBoot } = touchedNow({ clock: systemClock, bootClock });
    const hourMs = 3_600_000;
    const asks = async (run: Partial<PlanRun>) => {
      const steps: PlanRun['steps'] = [
        { machine: 'db', machineId: 'm', state: 'waiting' },
        { machine: 'web', machineId: 'n', state: 'waiting' },
      ];
      const document: PlanRun['document'] = { plan: 'shop', machines: { db: {}, web: { tier: 2 } } };
      const { runner, done, carriedOut, store, runId } = await resumed(t, {
        run: { steps, document, ...run },
      });
      const asked: string[] = [];
      const questions = new Set<string | undefined>();
      while (store.needRun(runId).endedAtMs === undefined) {
        await new Promise(setImmediate);
        const step = store.needRun(runId).steps.find(({ state }) => state === 'asking');
        if (!step || !(await runner.approve(step.machine, 'operator:b'))) continue;
        asked.push(step.machine);
        questions.add(step.reason);
      }
      assert.equal((await carriedOut).verdict, 'done');
      assert.deepEqual(done, ['begin', 'begin']);
      return [asked.join(), [...questions].join()];
    };
    const ofBoth = (said: string) => ['db,web', `${said}: is the other one still down?`];
    // A host that lost its power came back with a clock that has lost the time, too.
    const otherBoot = {
      touchedAtMs: touchedAtMs - 5000,
      touchedInBoot: { ...touchedInBoot, bootId: 'other' },
    };
    assert.deepEqual(
      await asks(otherBoot),
      ofBoth('the host of this site was started again in the middle of the run'),
    );
    assert.deepEqual(
      await asks({ touchedAtMs: touchedAtMs + hourMs }),
      ofBoth('the clock of this site was set back, and how long it was away is not known'),
    );
    const slept = { ...touchedInBoot, sinceBootMs: touchedInBoot.sinceBootMs - hourMs };
    assert.deepEqual(await asks({ touchedInBoot: slept }), ofBoth('this site was away for 60 minutes'));
    const unknown = await asks({ touchedInBoot: undefined as never });
    assert.deepEqual(unknown, ofBoth('this site does not know how long it was away'));
    assert.deepEqual(await asks({ touchedAtMs: touchedAtMs - 300_000 }), ['', '']);
  });

  it('F5 a run that breaks has an end on record, with what broke it', async (t) => {
    const steps: PlanRun['steps'] = [{ machine: 'db', machineId: 'm', state: 'waiting' }];
    const ends = async (fails: 'open' | 'close') => {
      const { carriedOut, store, runId } = await resumed(t, { mode: 'test', fails, run: { steps } });
      await assert.rejects(carriedOut, { code: 'DISK_FULL' });
      const { verdict, endedAtMs, steps: ended } = store.needRun(runId);
      assert.ok(endedAtMs !== undefined);
      return [verdict, ended[0]!.state, ended[0]!.reason];
    };
    assert.deepEqual(await ends('open'), ['failed', 'blocked', 'no space for the network']);
    assert.deepEqual(await ends('close'), ['failed', 'done', undefined]);
  });

  it('F5 a run that has ended is not begun once more', async (t) => {
    const over = await resumed(t, { run: { endedAtMs: 1, verdict: 'cancelled' } });
    assert.equal((await over.carriedOut).verdict, 'cancelled');
    assert.deepEqual(over.done, []);
  });
});
