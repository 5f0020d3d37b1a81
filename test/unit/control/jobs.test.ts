import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FailoverActs } from '../../../src/control/acts/failover-acts.ts';
import { HandoverActs } from '../../../src/control/acts/handover-acts.ts';
import type { EndingJob, JobHandler, JobKind, JobRecorder } from '../../../src/control/base/jobs.ts';
import { fillDatabase, makeRoomIn } from '../../support/full-database.ts';
import { jobsIn } from '../../support/jobs-by-hand.ts';
import { failure } from './fake-machine.ts';

const VERIFY = {
  kind: 'point.verify',
  args: { pointId: 'p' },
  actor: 'operator:test',
  machineId: 'm',
} as const;
const TEST = { ...VERIFY, kind: 'failover.test' } as const;

describe('jobs', () => {
  it('end with their result, and are audited before and after', async (t) => {
    const { clock, runs, open } = await jobsIn(t);
    const { jobs, audit, close } = open();
    const { jobId } = jobs.start(VERIFY);
    assert.equal(jobs.get(jobId).state, 'running');
    runs[0]!.context.progress({ bytesDone: 1, bytesTotal: 2 });
    assert.deepEqual(jobs.get(jobId).progress, { bytesDone: 1, bytesTotal: 2 });
    const waited = jobs.waitFor(jobId, 60_000, new AbortController().signal);
    runs[0]!.finish({ good: true });
    const ended = await waited;
    assert.deepEqual([ended.state, ended.result], ['done', { good: true }]);
    assert.deepEqual(
      audit.list({ limit: 10 }).map(({ act, phase, intent }) => ({ act, phase, intent })),
      [
        { act: 'point.verify', phase: 'done', intent: 1 },
        { act: 'point.verify', phase: 'intent', intent: undefined },
      ],
    );
    assert.equal(clock.pending, 0);
    await close();
  });

  it('have one end on record, also where a process ended right after it had written that', async (t) => {
    const { open } = await jobsIn(t);
    const { jobs, audit, close } = open();
    const { jobId } = jobs.start(TEST);
    audit.end(1, { actor: TEST.actor, act: TEST.kind }, undefined);
    await close();
    const again = open();
    assert.equal(again.jobs.get(jobId).state, 'failed');
    const phases = again.audit.list({ limit: 10 }).map(({ phase }) => phase);
    assert.deepEqual(phases, ['done', 'intent']);
    await again.close();
  });

  it('F9 of which something is kept have ended only when it is kept, also when the process ends in between', async (t) => {
    const { clock, runs, open } = await jobsIn(t);
    const kept: EndingJob[] = [];
    const keeping = Promise.withResolvers<void>();
    const began = Promise.withResolvers<void>();
    const recorder = (record: JobRecorder['record']): JobRecorder => ({
      wants: (kind) => kind === 'failover.test',
      record,
    });
    const first = open(
      recorder(() => {
        began.resolve();
        return keeping.promise;
      }),
    );
    const { jobId } = first.jobs.start(TEST);
    runs[0]!.context.progress({ step: 'booting' });
    clock.advance(5);
    runs[0]!.finish({ verdict: 'passed' });
    await began.promise;
    const before = first.jobs.get(jobId);
    assert.deepEqual([before.state, before.result, before.endedAtMs], ['running', undefined, undefined]);
    const endedAtMs = clock.wallMs();
    // The process dies here; its work is not begun once more, and it ended when it ended.
    clock.advance(1000);
    const second = open(
      recorder(async (ending) => {
        kept.push(ending);
      }),
    );
    const ended = await second.jobs.waitFor(jobId, 1000, new AbortController().signal);
    assert.deepEqual(
      [ended.state, ended.result, ended.endedAtMs],
      ['done', { verdict: 'passed' }, endedAtMs],
    );
    assert.equal(runs.length, 1);
    assert.deepEqual(
      kept.map(({ job }) => [job.jobId, job.state, job.result, job.endedAtMs]),
      [[jobId, 'done', { verdict: 'passed' }, endedAtMs]],
    );
    assert.deepEqual(
      second.jobs.ended().map(({ job, intent }) => [job.jobId, intent]),
      [[jobId, 1]],
    );
    await second.close();
    keeping.resolve();
    await first.close();
  });

  it('that fail say with which code', async (t) => {
    const { runs, open } = await jobsIn(t);
    const { jobs, close } = open();
    const first = jobs.start(VERIFY);
    runs[0]!.fail(failure('REPLICA_LAYER_DAMAGED', 'never'));
    const second = jobs.start(VERIFY);
    runs[1]!.fail(new Error('a bug with a secret in it'));
    const ended = await Promise.all(
      [first, second].map(({ jobId }) => jobs.waitFor(jobId, 1000, new AbortController().signal)),
    );
    assert.deepEqual(
      ended.map(({ state, failure: said }) => [state, said!.code]),
      [
        ['failed', 'REPLICA_LAYER_DAMAGED'],
        ['failed', 'INTERNAL'],
      ],
    );
    assert.ok(!JSON.stringify(ended[1]).includes('secret'));
    await close();
  });

  it('can be cancelled while they run and while they wait', async (t) => {
    const { runs, open } = await jobsIn(t);
    const { jobs, close } = open();
    const running = Array.from({ length: 4 }, () => jobs.start(VERIFY));
    const queued = jobs.start(VERIFY);
    assert.equal(queued.state, 'queued');
    assert.equal(jobs.cancel(queued.jobId).state, 'cancelled');
    jobs.cancel(running[0]!.jobId);
    const ended = await jobs.waitFor(running[0]!.jobId, 1000, new AbortController().signal);
    assert.equal(ended.state, 'cancelled');
    assert.equal(jobs.cancel(ended.jobId).state, 'cancelled', 'an ended job stays as it is');
    assert.equal(runs.length, 4, 'a cancelled job that waited never ran');
    await close();
  });

  it('wait for their turn when too many run', async (t) => {
    const { clock, runs, open } = await jobsIn(t);
    const { jobs, close } = open();
    const started = Array.from({ length: 6 }, () => jobs.start(VERIFY));
    assert.equal(runs.length, 4);
    runs[0]!.finish({});
    await jobs.waitFor(started[0]!.jobId, 1000, new AbortController().signal);
    await clock.turn(0);
    assert.equal(jobs.get(started[4]!.jobId).state, 'running');
    assert.equal(jobs.get(started[5]!.jobId).state, 'queued');
    await close();
  });

  it('F5 that boot, end or move machines wait behind no exports', async (t) => {
    const { open } = await jobsIn(t);
    const nothing = { diverged: { handlers: {} } } as never;
    const acts: Partial<Record<JobKind, JobHandler>> = {
      ...new FailoverActs(nothing).handlers,
      ...new HandoverActs(nothing).handlers,
    };
    const urgent = ['start', 'restart', 'stop', 'forward', 'cede', 'take', 'undo'].map(
      (act) => `failover.${act}` as JobKind,
    );
    const own = urgent.map((kind) => [kind, { ...acts[kind]!, run: async () => ({}) }]);
    const { jobs, close } = open(undefined, Object.fromEntries(own));
    for (let i = 0; i < 4; i++) {
      jobs.start({ kind: 'seed.export', args: {}, actor: 'operator:a', machineId: `m${i}` });
    }
    for (const kind of urgent) {
      const { jobId } = jobs.start({ kind, args: {}, actor: 'operator:a', machineId: 'db' });
      for (let i = 0; i < 20; i++) await new Promise(setImmediate);
      assert.equal(jobs.get(jobId).state, 'done', kind);
    }
    await close();
  });

  it('are taken up after a restart if that does no harm, and fail with JOB_INTERRUPTED if not', async (t) => {
    const { runs, open } = await jobsIn(t);
    const before = open();
    const verify = before.jobs.start(VERIFY);
    const test = before.jobs.start(TEST);
    await before.close();
    const after = open();
    assert.equal(after.jobs.get(verify.jobId).state, 'running');
    const failed = after.jobs.get(test.jobId);
    assert.deepEqual([failed.state, failed.failure!.code], ['failed', 'JOB_INTERRUPTED']);
    runs.at(-1)!.finish({ second: true });
    const ended = await after.jobs.waitFor(verify.jobId, 1000, new AbortController().signal);
    assert.deepEqual(ended.result, { second: true });
    await after.close();
  });

  it('that had not begun are begun by the next process only if that does no harm', async (t) => {
    const { clock, runs, open } = await jobsIn(t);
    const reported: string[] = [];
    const record = async ({ job }: EndingJob) => void reported.push(job.jobId);
    const before = open();
    for (let busy = 0; busy < 4; busy += 1) before.jobs.start(VERIFY);
    const [restart, undo] = (['failover.restart', 'failover.undo'] as const).map(
      (kind) => before.jobs.start({ ...VERIFY, kind }).jobId,
    );
    assert.deepEqual(
      [restart, undo].map((jobId) => before.jobs.get(jobId!).state),
      ['queued', 'queued'],
    );
    await before.close();
    const after = open({ wants: (kind) => kind === 'failover.restart', record });
    const failed = after.jobs.get(restart!);
    assert.deepEqual([failed.state, failed.failure?.code], ['failed', 'JOB_INTERRUPTED']);
    // Nothing has happened of which there could be a report.
    assert.deepEqual(reported, []);
    runs[4]!.finish({});
    await after.jobs.endOf(runs[4]!.context.jobId, new AbortController().signal);
    await clock.turn(0);
    assert.equal(after.jobs.get(undo!).state, 'running');
    assert.deepEqual(
      runs.slice(4).map(({ kind }) => kind),
      [...Array.from({ length: 4 }, () => 'point.verify'), 'failover.undo'],
    );
    await after.close();
  });

  it('are waited for as long as asked, and not longer', async (t) => {
    const { clock, open } = await jobsIn(t);
    const { jobs, close } = open();
    const { jobId } = jobs.start(VERIFY);
    const waited = jobs.waitFor(jobId, 5000, new AbortController().signal);
    await clock.turn(5000);
    assert.equal((await waited).state, 'running');
    assert.throws(() => jobs.get('01hzzzzzzzzzzzzzzzzzzzzzzz'), { code: 'JOB_UNKNOWN' });
    await close();
  });

  /** A result that finds no room in a page that is there already. */
  const LONG = { text: 'x'.repeat(10_000) };

  it('that end while the disk is full have ended, and give their place to others', async (t) => {
    const { clock, runs, open } = await jobsIn(t);
    const { jobs, database, audit, close } = open();
    const first = [VERIFY, VERIFY, VERIFY, VERIFY, VERIFY].map((request) => jobs.start(request).jobId);
    fillDatabase(database);
    for (const { finish } of [...runs]) finish(LONG);
    const { signal } = new AbortController();
    const ends = await Promise.all(first.slice(0, 4).map((jobId) => jobs.endOf(jobId, signal)));
    assert.deepEqual(
      ends.map((job) => [job!.state, job!.result]),
      ends.map(() => ['done', LONG]),
    );
    await clock.turn(0);
    // Each was begun once; the one that waited has its turn.
    assert.deepEqual(
      runs.map(({ context }) => context.jobId),
      first,
    );
    assert.deepEqual(
      jobs.underWay(['point.verify']).map(({ jobId, state }) => [jobId, state]),
      [[first[4], 'running']],
    );
    assert.deepEqual(
      jobs.ended().map(({ job }) => job.jobId),
      first.slice(0, 4).reverse(),
    );
    assert.throws(() => jobs.start(VERIFY), { code: 'SITE_DATABASE_FULL' });
    makeRoomIn(database);
    // Stored by itself as soon as there is room: a process that dies now has lost nothing.
    await clock.turn(2_000);
    const stored = database.prepare('SELECT state FROM jobs ORDER BY rowid').all();
    assert.deepEqual(
      stored.map(({ state }) => state),
      ['done', 'done', 'done', 'done', 'running'],
    );
    assert.equal(clock.pending, 0);
    runs.at(-1)!.finish({});
    await jobs.endOf(first[4]!, signal);
    assert.equal(audit.list({ limit: 100 }).filter(({ phase }) => phase === 'done').length, 5);
    await close();
  });

  it('that ended while the disk was full are not carried out once more, if there was room before the site closed, or before another was begun', async (t) => {
    for (const when of ['closing', 'starting'] as const) {
      const { clock, runs, open } = await jobsIn(t);
      const before = open();
      const { jobId } = before.jobs.start({ ...VERIFY, kind: 'failover.undo' });
      fillDatabase(before.database);
      runs[0]!.finish(LONG);
      await before.jobs.endOf(jobId, new AbortController().signal);
      assert.throws(() => before.jobs.start(VERIFY), { code: 'SITE_DATABASE_FULL' });
      makeRoomIn(before.database);
      if (when === 'starting') before.jobs.start(TEST);
      else await before.close();
      const began = runs.length;
      const after = open();
      assert.deepEqual([after.jobs.get(jobId).state, runs.length], ['done', began]);
      await after.close();
      if (when === 'starting') await before.close();
      assert.equal(clock.pending, 0);
    }
  });

  it('that began while the disk was full are not said never to have begun', async (t) => {
    const { clock, runs, open } = await jobsIn(t);
    const killed = open();
    const [first] = [VERIFY, VERIFY, VERIFY, VERIFY].map((request) => killed.jobs.start(request).jobId);
    const { jobId } = killed.jobs.start(TEST);
    fillDatabase(killed.database);
    runs[0]!.finish(LONG);
    await killed.jobs.endOf(first!, new AbortController().signal);
    await clock.turn(0);
    assert.equal(runs[4]!.context.jobId, jobId);
    const next = open();
    const { code, message } = next.jobs.get(jobId).failure!;
    assert.equal(code, 'JOB_INTERRUPTED');
    assert.equal(message, 'the site process ended before it was on record that the job had begun');
    await next.close();
    await killed.close();
  });

  it('of which not even the beginning can be stored are begun once', async (t) => {
    const { clock, runs, open } = await jobsIn(t);
    const { jobs, database, close } = open();
    const jobIds = Array.from({ length: 5 }, () => jobs.start(VERIFY).jobId);
    // Whatever is changed of a job needs room that there is not.
    database.exec(`CREATE TABLE filler (bytes BLOB) STRICT;
      CREATE TRIGGER grows BEFORE UPDATE ON jobs BEGIN INSERT INTO filler VALUES (zeroblob(100000)); END`);
    fillDatabase(database);
    for (let ended = 0; ended < 5; ended += 1) {
      runs[ended]!.finish({});
      await jobs.endOf(jobIds[ended]!, new AbortController().signal);
      await clock.turn(0);
    }
    assert.deepEqual(
      runs.map(({ context }) => context.jobId),
      jobIds,
    );
    const stored = () =>
      database.prepare("SELECT count(*) AS jobs FROM jobs WHERE state = 'done'").get()!.jobs;
    assert.equal(stored(), 0);
    assert.deepEqual(jobs.underWay(['point.verify']), []);
    await clock.turn(10_000);
    assert.equal(stored(), 0);
    makeRoomIn(database);
    await clock.turn(2_000);
    assert.equal(stored(), 5);
    await close();
  });

  it('that were cancelled stay cancelled, also when the process is killed before they have ended', async (t) => {
    const { runs, open, hang } = await jobsIn(t);
    const killed = open();
    const kinds = ['failover.undo', 'failover.start', 'failover.cede', 'failover.undo'] as const;
    const [undo, start, cede, done] = kinds.map((kind) => killed.jobs.start({ ...VERIFY, kind }).jobId);
    hang();
    for (const jobId of [undo, start, cede, done]) killed.jobs.cancel(jobId!);
    assert.equal(killed.jobs.get(undo!).state, 'running');
    // One of them comes to its end nonetheless.
    runs[3]!.finish({ ended: true });
    await killed.jobs.endOf(done!, new AbortController().signal);
    hang(false);
    const after = open();
    // Handed over was a machine, which is started again: that is for the handler, which sees that it was cancelled.
    assert.deepEqual(
      runs.slice(4).map(({ kind, context }) => [kind, context.signal.aborted]),
      [['failover.cede', true]],
    );
    const ended = await after.jobs.endOf(cede!, new AbortController().signal);
    const all = [after.jobs.get(undo!), after.jobs.get(start!), ended!, after.jobs.get(done!)];
    assert.deepEqual(
      all.map(({ state, failure: said }) => [state, said?.code]),
      [
        ['cancelled', 'CANCELLED'],
        ['cancelled', 'CANCELLED'],
        ['cancelled', 'CANCELLED'],
        ['done', undefined],
      ],
    );
    await after.close();
    for (const { fail } of runs) fail(new Error('killed'));
    await killed.close();
  });

  it('whose work was over when they were cancelled end as they did', async (t) => {
    const { runs, open } = await jobsIn(t);
    const keeping = Promise.withResolvers<void>();
    const began = Promise.withResolvers<void>();
    const record = () => {
      began.resolve();
      return keeping.promise;
    };
    const killed = open({ wants: () => true, record });
    const { jobId } = killed.jobs.start(TEST);
    runs[0]!.finish({ verdict: 'passed' });
    await began.promise;
    killed.jobs.cancel(jobId);
    const after = open();
    assert.deepEqual(
      [after.jobs.get(jobId).state, after.jobs.get(jobId).result],
      ['done', { verdict: 'passed' }],
    );
    await after.close();
    keeping.resolve();
    await killed.close();
  });
});
