/** Reports of real failovers, tests and plan runs: written, exported, verified away from the site, and found out when they were changed. */
import assert from 'node:assert/strict';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type {
  JobView,
  PlanDocument,
  PlanRun,
  Report,
  ReportSummary,
  SignedReport,
} from '../../../src/api/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import {
  ended,
  machineThatIsOff,
  pairedSites,
  resultOf,
  someonesMachine,
} from '../../support/paired-sites.ts';
import { BY_HAND, verifiedCopy, write } from '../../support/site-of-box.ts';
import { run as cli } from '../../unit/cli/fake-world.ts';

const MIB = 1024 * 1024;
const DB = { params: { machine: 'db' } };
const GATES = [{ kind: 'agent' }, { kind: 'serial', pattern: '^lab guest up' }] as const;

async function reportOf(api: TestApi, { jobId }: Pick<JobView, 'jobId'>): Promise<Report> {
  const { text } = await api.call('report.show', { params: { report: jobId } });
  return (JSON.parse(text) as SignedReport).report;
}

describe('a report', { timeout: 300_000 }, () => {
  it('F9 tells a test, an unplanned failover and a run of a plan to who was not there, signed, and in every format', async (context) => {
    const { t, directory, home, homeApi, away, awayApi } = await pairedSites(context, { aheadMs: 90_000 });
    const { attach, lab } = await someonesMachine(t, directory, 'db');
    await homeApi.call('vm.add', { body: { attach } });
    await homeApi.call('vm.protect', { ...DB, body: BY_HAND });
    await verifiedCopy(homeApi, DB);
    await lab.stop();
    for (const [index, name] of ['app', 'web'].entries()) {
      const path = join(directory, `${name}.qcow2`);
      await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(32 * MIB)]);
      await write(path, 1, 0, MIB);
      const body = machineThatIsOff({ path, sizeBytes: 32 * MIB, format: 'qcow2' });
      assert.ok('configuration' in body);
      const uuid = `6f1f2c3e-0d2a-4b5e-8f7a-0123456789${10 + index}`;
      await homeApi.call('vm.add', {
        body: { ...body, configuration: { ...(body.configuration as object), name, uuid } },
      });
      const of = { params: { machine: name } };
      await homeApi.call('vm.protect', { ...of, body: BY_HAND });
      await verifiedCopy(homeApi, of);
    }

    const tested = await awayApi.call('failover.test', { ...DB, body: { probes: [...GATES] } });
    await resultOf(awayApi, tested);
    const test = await reportOf(awayApi, tested);
    assert.deepEqual([test.kind, test.verdict, test.machine!.name], ['test', 'passed', 'db']);
    assert.match(test.request.actor, /^operator:/);
    assert.ok(
      test.rtoMs! > 0 && test.rpo!.basis === 'age' && test.rpo!.ms < 120_000,
      JSON.stringify(test.rpo),
    );
    const [attempt] = test.attempts;
    // The clock of the home site is ahead by so much, and what is told is corrected by that.
    assert.ok(Math.abs(attempt!.point.skewMs! - 90_000) < 5_000, String(attempt!.point.skewMs));
    assert.ok(attempt!.picture && attempt!.bootProof && attempt!.statement);
    assert.deepEqual(test.attachments, [attempt!.picture.sha256]);
    assert.deepEqual(test.missing, []);
    assert.ok(test.timeline.some(({ name }) => name === 'probes'));
    const { entries } = await awayApi.call('audit.list');
    const begun = entries.find(({ act, phase }) => act === 'failover.test' && phase === 'intent')!;
    assert.deepEqual(test.request.audit, { sequence: begun.sequence, hash: begun.hash });

    // The key is the one that the other site has pinned, not the one that this site says is its own.
    const key = join(directory, 'away.pem');
    const atHome = { workingDirectory: directory, environment: { WARMSITE_DATA: home.dataDirectory } };
    await writeFile(key, (await cli(['site', 'key', '--peer', 'away'], atHome)).output);
    await home.close();

    const started = await awayApi.call('failover.start', {
      ...DB,
      body: { probes: [...GATES], confirmOtherSideDown: true },
    });
    await resultOf(awayApi, started);
    const failover = await reportOf(awayApi, started);
    assert.deepEqual([failover.kind, failover.verdict], ['unplanned', 'passed']);
    assert.deepEqual(
      failover.confirmations.map(({ what, by }) => ({ what, by })),
      [{ what: 'other-side-down', by: failover.request.actor }],
    );
    assert.deepEqual([failover.right!.state, failover.right!.epoch], ['holds', 2]);
    assert.equal(failover.branchId, (await awayApi.call('failover.list', DB))[0]!.branchId);

    const document: PlanDocument = {
      plan: 'shop',
      machines: { app: {}, web: { tier: 2, approval: 'Is the shop closed?' }, mail: { tier: 2 } },
    };
    await awayApi.call('plan.put', { body: document });
    const running = await awayApi.call('plan.run', {
      params: { plan: 'shop' },
      body: { mode: 'unplanned', confirmOtherSideDown: true },
    });
    const { runId } = running.run;
    await away.until(async () => {
      const { steps } = await awayApi.call('plan.showRun', { params: { run: runId } });
      return steps.some(({ state }) => state === 'asking') || undefined;
    });
    await awayApi.call('plan.approve', { params: { run: runId }, body: { machine: 'web' } });
    const run = (await resultOf(awayApi, running.job)) as PlanRun;
    const plan = await reportOf(awayApi, running.job);
    assert.deepEqual([plan.kind, plan.verdict, plan.plan!.runId], ['plan', 'partly', runId]);
    assert.ok(plan.rtoMs! > 0 && plan.rpo!.ms > 0, JSON.stringify([plan.rtoMs, plan.rpo]));
    const approval = plan.confirmations.find(({ what }) => what === 'approval')!;
    assert.deepEqual([approval.machine, approval.question], ['web', 'Is the shop closed?']);
    assert.ok(approval.atMs! >= plan.request.askedAtMs && approval.atMs! <= plan.request.endedAtMs);
    const web = await reportOf(awayApi, {
      jobId: run.steps.find(({ machine }) => machine === 'web')!.jobId!,
    });
    assert.deepEqual(
      [web.request.actor, web.request.onBehalfOf, web.confirmations.map(({ what }) => what)],
      [`plan:${runId}`, plan.request.actor, ['other-side-down', 'approval']],
    );
    assert.equal(plan.plan!.steps.find(({ machine }) => machine === 'web')!.report!.reportId, web.reportId);

    const listed = await awayApi.call('report.list', {});
    assert.deepEqual(listed.reports.map(({ kind, about }) => `${kind} ${about}`).sort(), [
      'plan shop',
      'test db',
      'unplanned app',
      'unplanned db',
      'unplanned web',
    ]);

    const here = {
      workingDirectory: directory,
      environment: { ...process.env, WARMSITE_DATA: away.dataDirectory },
    };
    const file = (id: string, format: string) => join(directory, `warmsite-report-${id}.${format}`);
    for (const { reportId } of [test, failover, plan]) {
      for (const format of ['json', 'html']) {
        const exported = await cli(['report', 'export', reportId, '--format', format], here);
        assert.equal(exported.exitCode, 0, exported.messages);
      }
    }
    const pdf = await cli(['report', 'export', test.reportId, '--format', 'pdf'], here);
    assert.equal(pdf.exitCode, 0, pdf.messages);
    assert.equal((await readFile(file(test.reportId, 'pdf'))).subarray(0, 5).toString(), '%PDF-');
    await away.close();

    // From here on there is no site.
    const nowhere = { workingDirectory: directory };
    const files = [test, failover, plan].flatMap(({ reportId }) => [
      file(reportId, 'json'),
      file(reportId, 'html'),
    ]);
    const good = await cli(['proof', 'verify', ...files, '--key', key, '--json'], nowhere);
    assert.equal(good.exitCode, 0, good.output + good.messages);
    assert.equal((JSON.parse(good.output) as unknown[]).length, 6);
    const kit = join(directory, 'away.kit');
    await writeFile(kit, away.recoveryKit);
    assert.equal((await cli(['proof', 'verify', ...files, '--kit', kit], nowhere)).exitCode, 0);
    const proofs = await readFile(file(test.reportId, 'json'), 'utf8');
    const again = file(test.reportId, 'again.html');
    const offline = ['report', 'export', file(test.reportId, 'json'), '--output', again];
    assert.equal((await cli(offline, nowhere)).exitCode, 0);
    assert.deepEqual(await readFile(again), await readFile(file(test.reportId, 'html')));

    // Somebody else's key, no key, a better verdict, another picture of the page.
    await writeFile(kit, home.recoveryKit);
    assert.equal((await cli(['proof', 'verify', files[0]!, '--kit', kit], nowhere)).exitCode, 1);
    assert.equal((await cli(['proof', 'verify', files[0]!], nowhere)).exitCode, 2);
    await writeFile(files[0]!, proofs.replace('"verdict": "passed"', '"verdict": "failed"'));
    const changed = await cli(['proof', 'verify', files[0]!, '--key', key], nowhere);
    assert.equal(changed.exitCode, 1);
    assert.match(changed.output, /the signature is of other bytes/);
    const page = await readFile(files[1]!, 'utf8');
    await writeFile(files[1]!, page.replace('RTO measured', 'RTO promised'));
    const painted = await cli(['proof', 'verify', files[1]!, '--key', key], nowhere);
    assert.equal(painted.exitCode, 1);
    assert.match(painted.output, /the page around it was changed/);
  });

  it('F9 is written before its job is said to have ended, also when the site ends in between, and says of what it lacks that it lacks it', async (context) => {
    const { directory, homeApi, away, awayApi } = await pairedSites(context);
    const path = join(directory, 'box.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(32 * MIB)]);
    await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: 32 * MIB, format: 'qcow2' }) });
    const of = { params: { machine: 'box' } };
    await homeApi.call('vm.protect', { ...of, body: BY_HAND });
    await verifiedCopy(homeApi, of);
    const probes = [{ kind: 'serial', pattern: 'never said' }] as const;
    const job = await awayApi.call('failover.test', { ...of, body: { probes: [...probes] } });
    // Branches tell nobody how far they are: they are asked until one is there.
    while ((await awayApi.call('failover.list', of)).length === 0);
    await away.close();
    let again = await away.serve();
    const interrupted = await ended(again, job);
    assert.equal(interrupted.failure!.code, 'JOB_INTERRUPTED');
    const report = await reportOf(again, job);
    assert.deepEqual(
      [report.verdict, report.failure!.code, report.attempts],
      ['interrupted', 'JOB_INTERRUPTED', []],
    );

    // A report that is gone is made up from the job; what has gone with the machine is named.
    await away.close();
    await rm(join(away.dataDirectory, 'reports', `${job.jobId}.json`));
    again = await away.serve();
    let madeUp: ReportSummary | undefined;
    while (!madeUp) {
      const { reports } = await again.call('report.list', {});
      madeUp = reports.find(({ reportId }) => reportId === job.jobId);
    }
    assert.equal(madeUp.verdict, 'interrupted');
    await assert.rejects(reportOf(again, { jobId: report.site.siteId }), { code: 'REPORT_UNKNOWN' });
    const stored = join(away.dataDirectory, 'reports', `${job.jobId}.json`);
    await writeFile(stored, (await readFile(stored, 'utf8')).replace('"kind": "test"', '"kind": "take"'));
    await assert.rejects(reportOf(again, job), { code: 'REPORT_DAMAGED' });

    // Where nothing can be written a test ends all the same, people are told, and nothing is forgotten.
    const reports = join(away.dataDirectory, 'reports');
    const quick = {
      ...of,
      body: { probes: [{ kind: 'serial' as const, pattern: 'never said', limitMs: 1 }] },
    };
    const alerts = async () => (await again.call('alert.list', {})).map(({ code }) => code);
    await rename(reports, `${reports}.elsewhere`);
    const unwritten = await again.call('failover.test', quick);
    await resultOf(again, unwritten);
    assert.ok((await alerts()).includes('REPORT_NOT_WRITTEN'));
    await assert.rejects(reportOf(again, unwritten), { code: 'REPORT_UNKNOWN' });
    await rename(`${reports}.elsewhere`, reports);
    const next = await again.call('failover.test', quick);
    await resultOf(again, next);
    for (const one of [unwritten, next]) {
      const { verdict, attempts } = await reportOf(again, one);
      assert.deepEqual([verdict, attempts.map((attempt) => attempt.verdict)], ['failed', ['failed']]);
    }
    assert.ok(!(await alerts()).includes('REPORT_NOT_WRITTEN'));
  });
});
