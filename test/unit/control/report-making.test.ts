import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { AuditView, JobView, PlanRun, ReportVerdict } from '../../../src/api/index.ts';
import { Audit } from '../../../src/control/base/audit.ts';
import { openDatabase } from '../../../src/control/base/database.ts';
import { endAdoptions, endedAdoptions } from '../../../src/control/reports/report-adoptions.ts';
import {
  confirmationsOf,
  lossOf,
  planFigures,
  reportKindOf,
  timelineOf,
  verdictOf,
} from '../../../src/control/reports/report-making.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const ID = '01jh2v0m8v7d6e5f4g3h2j1k0m';
const BRANCH = '01jh2v0m8v7d6e5f4g3h2j1k0n';
const ADOPT = { actor: 'operator:default', act: 'failover.adopt', subject: 'm' };

function entry(sequence: number, o: Partial<AuditView>): AuditView {
  return {
    ...{ sequence, atMs: sequence * 100, actor: 'operator:default', act: 'failover.adopt' },
    ...{ phase: 'intent', subject: 'm', details: { branchId: BRANCH, reportId: ID }, hash: '0' },
    ...o,
  };
}

function adoptions(entries: readonly AuditView[]) {
  return endedAdoptions({ list: () => [...entries] }).map(({ job, intent }) => [
    ...[job.jobId, intent, job.state, job.failure?.code, job.createdAtMs, job.endedAtMs],
  ]);
}

describe('what a report is made of', () => {
  it('F9 of an adoption: the audit log, also of one that nobody saw to its end', () => {
    const done = entry(9, { phase: 'done', intent: 7, details: {} });
    const failed = entry(9, { phase: 'failed', intent: 7, details: { code: 'FAILOVER_FENCED' } });
    const begun = entry(7, {});
    assert.deepEqual(adoptions([done, begun]), [[ID, 7, 'done', undefined, 700, 900]]);
    assert.deepEqual(adoptions([failed, begun]), [[ID, 7, 'failed', 'ADOPTION_FAILED', 700, 900]]);
    const cutShort = entry(9, { phase: 'failed', intent: 7, details: { code: 'JOB_INTERRUPTED' } });
    assert.deepEqual(adoptions([cutShort, begun]), [[ID, 7, 'failed', 'JOB_INTERRUPTED', 700, 900]]);
    // From before there were reports, or of something else.
    assert.deepEqual(adoptions([done, entry(7, { details: { branchId: BRANCH } })]), []);
    assert.deepEqual(adoptions([done, entry(7, { act: 'failover.withdraw' })]), []);
  });

  it('F9 of an adoption that its process did not live to tell of: that it was done, if it was, and else that it was interrupted', () => {
    const begun = entry(7, {});
    const of = (entries: readonly AuditView[], adopted: string | undefined) => {
      const ends: [number, string][] = [];
      const end = (intent: number, _act: object, error: unknown) =>
        void ends.push([intent, error === undefined ? 'done' : (error as Failure).code]);
      const isAdopted = (machineId: string, branchId: string) =>
        adopted === undefined ? undefined : machineId === 'm' && branchId === adopted;
      endAdoptions({ list: () => [...entries], end }, isAdopted);
      return ends;
    };
    const done = entry(9, { phase: 'done', intent: 7, details: {} });
    assert.deepEqual(of([begun], BRANCH), [[7, 'done']]);
    assert.deepEqual(of([begun], ID), [[7, 'JOB_INTERRUPTED']], 'it was not adopted');
    assert.deepEqual(of([begun], undefined), [], 'the machine cannot be read');
    assert.deepEqual(of([done, begun], BRANCH), []);
    assert.deepEqual(of([entry(7, { act: 'failover.undo' })], BRANCH), []);
    // Somebody has done it after an earlier process had been interrupted in it; or was killed as well, when it was done.
    assert.deepEqual(of([done, begun, entry(5, {})], BRANCH), [[5, 'JOB_INTERRUPTED']]);
    const both = [
      [7, 'done'],
      [5, 'JOB_INTERRUPTED'],
    ];
    assert.deepEqual(of([begun, entry(5, {})], BRANCH), both);
    const refused = entry(9, { phase: 'failed', intent: 7, details: { code: 'FAILOVER_ADOPTED' } });
    assert.deepEqual(of([refused, begun, entry(5, {})], BRANCH), [[5, 'done']]);
  });

  it('F9 an adoption that is under way while the reports of a site that has just started are written is not reported as interrupted', async (t) => {
    const database = openDatabase(join(await temporaryDirectory(t), 'site.db'));
    t.after(() => database.close());
    const audit = new Audit({ database, clock: new FakeClock() });
    const begin = (reportId: string) =>
      audit.begin({ ...ADOPT, actor: `operator:${reportId}`, details: { branchId: BRANCH, reportId } });
    const reported = () => endedAdoptions(audit).map(({ job }) => [job.jobId, verdictOf(job, undefined)]);
    begin(ID);
    endAdoptions(audit, () => false);
    const again = begin(BRANCH);
    assert.deepEqual(reported(), [[ID, 'interrupted']]);
    audit.end(again, ADOPT, undefined);
    const all = [
      [BRANCH, 'passed'],
      [ID, 'interrupted'],
    ];
    assert.deepEqual(reported(), all);
    // The next process finds nothing that it would have to say of either.
    endAdoptions(audit, () => true);
    assert.deepEqual(reported(), all);
    assert.equal(audit.list({ limit: 10 }).length, 4);
  });

  it('F9 of what is lost: the age of the point at the command, nothing of what was handed over, and no word where nothing came up', () => {
    const rpoOf = (...of: Parameters<typeof lossOf>) => lossOf(...of).rpo;
    const o = { commandAtMs: 10_000, point: { cutAtMs: 4_000, skewMs: -50 } };
    assert.deepEqual(rpoOf('unplanned', 'passed', o), { ms: 6_000, basis: 'age', skewMs: -50 });
    assert.deepEqual(rpoOf('test', 'unproven', o)!.ms, 6_000);
    assert.deepEqual(rpoOf('take', 'passed', o), { ms: 0, basis: 'nothing-lost' });
    assert.deepEqual(rpoOf('cede', 'passed', { commandAtMs: 0 }), { ms: 0, basis: 'nothing-lost' });
    for (const verdict of ['failed', 'cancelled', 'interrupted'] as const)
      assert.equal(rpoOf('unplanned', verdict, o), undefined);
    assert.equal(rpoOf('restart', 'passed', o), undefined);
    // A clock that was put back makes no point younger than now.
    assert.equal(rpoOf('unplanned', 'passed', { commandAtMs: 1, point: { cutAtMs: 2 } })!.ms, 0);
  });

  it('F4 F9 of a machine that was brought up upon the same point before: no word that nothing is lost, and where that may be', () => {
    const of = (verdict: ReportVerdict, earlierBranchIds: readonly string[]) =>
      lossOf('take', verdict, { commandAtMs: 10_000, point: { cutAtMs: 4_000 }, earlierBranchIds });
    const said = 'how much is lost at most: what may have been written before,';
    assert.deepEqual(of('passed', [BRANCH]), {
      missing: [`${said} in ${BRANCH} upon the same point, is not in this branch`],
    });
    assert.deepEqual(of('unproven', []), {
      missing: [`${said} when the machine was taken over, is in no branch any more`],
    });
    assert.deepEqual(of('failed', [BRANCH]), { missing: [] });
  });

  it('F9 of a plan: until the last machine was up, and what the one lacks that lacks most', () => {
    const run = {
      ...{ runId: ID, actor: 'a', request: { mode: 'unplanned' }, startedAtMs: 1_000 },
      document: { plan: 'shop', machines: { db: {} } },
      steps: [
        { machine: 'db', machineId: 'd', state: 'done', jobId: ID, endedAtMs: 3_000 },
        { machine: 'web', machineId: 'w', state: 'done', jobId: BRANCH, endedAtMs: 5_000 },
        { machine: 'mail', machineId: '', state: 'failed', endedAtMs: 9_000 },
      ],
    } as PlanRun;
    const named = { reportId: ID, sha256: '0' };
    const loss = (ms: number) => ({ named, rpo: { ms, basis: 'age' as const } });
    const figures = planFigures(
      run,
      new Map([
        [ID, loss(70)],
        [BRANCH, loss(20)],
      ]),
    );
    assert.deepEqual(figures, { rtoMs: 4_000, rpo: { ms: 70, basis: 'age' }, missing: [] });
    assert.deepEqual(planFigures({ ...run, request: { mode: 'cede' } }, new Map()), { missing: [] });
    assert.deepEqual(planFigures({ ...run, steps: [] }, new Map()), { missing: [] });
  });

  it('F9 of a plan: no word of what is lost unless it is known of each machine that is up, and of which it is not', () => {
    const up = (machine: string, jobId?: string) => ({
      ...{ machine, machineId: machine, state: 'done', endedAtMs: 3_000, ...(jobId ? { jobId } : {}) },
    });
    const run = {
      ...{ runId: ID, actor: 'a', request: { mode: 'unplanned' }, startedAtMs: 1_000 },
      document: { plan: 'shop', machines: {} },
      // One was up before the run, one was interrupted and booted again, the report of one is not written yet.
      steps: [up('db', ID), up('early'), up('again', BRANCH), up('owed', 'owed')],
    } as unknown as PlanRun;
    const named = { reportId: ID, sha256: '0' };
    const { rpo, rtoMs, missing } = planFigures(
      run,
      new Map([
        [ID, { named, rpo: { ms: 70, basis: 'age' as const } }],
        [BRANCH, { named, rpo: undefined }],
      ]),
    );
    assert.deepEqual([rpo, rtoMs], [undefined, 2_000]);
    assert.deepEqual(missing, ['how much is lost at most: no report says it of early, again, owed']);
  });

  it('F9 of a plan: what people answered, by the questions as they were asked', () => {
    const job: JobView = {
      ...{ jobId: ID, kind: 'plan.run', state: 'done', machineId: 'shop', args: {}, actor: 'a' },
      ...{ createdAtMs: 100, endedAtMs: 900, progress: {} },
    };
    const said = (step: Partial<PlanRun['steps'][number]>) => {
      const run = {
        ...{ runId: ID, actor: 'a', request: { mode: 'unplanned' }, startedAtMs: 1 },
        document: { plan: 'shop', machines: { db: { approval: 'Is it plugged in?' } } },
        steps: [{ machine: 'db', machineId: 'd', state: 'done', ...step }],
      } as PlanRun;
      return confirmationsOf(job, { run, isOwnRun: true }).map(({ what, by, atMs, machine, question }) => [
        what,
        by,
        atMs,
        machine,
        question,
      ]);
    };
    const down = { question: 'is the other one still down?', by: 'operator:b', atMs: 5 };
    const own = { question: 'Is it plugged in?', by: 'operator:c', atMs: 7 };
    assert.deepEqual(said({}), []);
    assert.deepEqual(said({ answers: [down] }), [['approval', 'operator:b', 5, 'db', down.question]]);
    const both = { approvedBy: 'operator:c', approvedAtMs: 7, answers: [down, own] };
    assert.deepEqual(said(both), [
      ['approval', 'operator:b', 5, 'db', down.question],
      ['approval', 'operator:c', 7, 'db', own.question],
    ]);
    // An earlier program had kept who said yes, and not to what.
    assert.deepEqual(said({ approvedBy: 'operator:c', approvedAtMs: 7 }), [
      ['approval', 'operator:c', 7, 'db', own.question],
    ]);
  });

  it('F9 of a machine: what people answered for it in a run of a plan, also if the plan calls it by its id', () => {
    const job: JobView = {
      ...{ jobId: ID, kind: 'failover.start', state: 'done', machineId: 'd', args: {}, actor: 'plan:r' },
      ...{ createdAtMs: 100, endedAtMs: 900, progress: {} },
    };
    const answers = [{ question: 'Is it plugged in?', by: 'operator:b', atMs: 5 }];
    for (const called of ['db', 'd']) {
      const steps = [
        { machine: called, machineId: 'd', state: 'done', answers },
        { machine: 'web', machineId: 'w', state: 'done', answers },
      ];
      const request = { mode: 'unplanned' };
      const run = { runId: ID, actor: 'a', request, startedAtMs: 1, steps } as unknown as PlanRun;
      const said = confirmationsOf(job, { run, isOwnRun: false });
      assert.deepEqual(
        said.map(({ what, machine, by }) => [what, machine, by]),
        [['approval', called, 'operator:b']],
      );
    }
  });

  it('F9 of a job: its own steps one after the other, and how it ended', () => {
    const job: JobView = {
      ...{ jobId: ID, kind: 'failover.cede', state: 'done', machineId: 'm', args: {}, actor: 'a' },
      ...{ createdAtMs: 100, endedAtMs: 900, progress: {} },
    };
    const kinds = ['failover.test', 'drill.run', 'failover.adopt', 'failover.stop', 'point.create'];
    assert.deepEqual(kinds.map(reportKindOf), ['test', 'drill', 'adopt', undefined, undefined]);
    const steps = [
      { step: 'shutting the guest down', beganAtMs: 200 },
      { step: 'telling the other site', beganAtMs: 650 },
    ];
    assert.deepEqual(
      timelineOf({ job, steps }, undefined, undefined).map(({ name, durationMs }) => [name, durationMs]),
      [
        ['shutting the guest down', 450],
        ['telling the other site', 250],
      ],
    );
    const about = { run: undefined, isOwnRun: false };
    const started = { ...job, kind: 'failover.start' as const, args: { askWitness: true } };
    assert.deepEqual(confirmationsOf(started, about), []);
    const words = (result: object) => confirmationsOf({ ...started, result }, about).map(({ what }) => what);
    assert.deepEqual(words({ heldBy: 'votes' }), ['votes']);
    assert.deepEqual(words({ heldBy: 'held-before' }), []);
    // Of a program that was to fence its success counts, and nothing else that is said of it.
    const fence = {
      act: 'failover.fence',
      details: { program: 'off', output: 'x'.repeat(5000), beganAtMs: 7 },
    };
    const fenced = (phase: AuditView['phase']) =>
      confirmationsOf(
        { ...started, args: { fence: { program: 'off' } } },
        { ...about, fenced: [entry(5, { ...fence, phase: 'intent' }), entry(6, { ...fence, phase })] },
      );
    assert.deepEqual(fenced('failed'), []);
    assert.deepEqual(fenced('done'), [
      { what: 'fenced', by: 'operator:default', atMs: 7, program: 'off', output: 'x'.repeat(4000) },
    ]);
    assert.equal(verdictOf(job, undefined), 'passed');
    assert.equal(verdictOf({ ...job, result: { verdict: 'unproven' } }, undefined), 'unproven');
    assert.equal(verdictOf({ ...job, state: 'cancelled' }, undefined), 'cancelled');
    assert.equal(verdictOf({ ...job, state: 'failed' }, undefined), 'failed');
  });
});
