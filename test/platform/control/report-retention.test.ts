/** Reports that go, by a rule or on a person's word: real files, real jobs, over the API and by the command line. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Report, SignedReport } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { reportDigest } from '../../../src/report/index.ts';
import type { TestApi } from '../../support/api.ts';
import { eventually } from '../../support/eventually.ts';
import { BOX, resultOf } from '../../support/paired-sites.ts';
import { sampleReport } from '../../support/sample-report.ts';
import { BY_HAND, sitesWithMachine, verifiedCopy } from '../../support/site-of-box.ts';
import { run as cli } from '../../unit/cli/fake-world.ts';

const DAY_MS = 86_400_000;

/** A report as this site would have written it so many days ago. */
async function reportOf(
  dataDirectory: string,
  { daysAgo, ...change }: { readonly daysAgo: number } & Partial<Report>,
): Promise<string> {
  const endedAtMs = systemClock.wallMs() - daysAgo * DAY_MS;
  const reportId = newId({ ...systemClock, wallMs: () => endedAtMs }, systemRandom);
  const request = { actor: 'site', askedAtMs: endedAtMs, endedAtMs, arguments: {} };
  const bytes = sampleReport({ change: { reportId, request, ...change } });
  await mkdir(join(dataDirectory, 'reports'), { recursive: true });
  await writeFile(join(dataDirectory, 'reports', `${reportId}.json`), bytes);
  return reportId;
}

async function idsAt(api: TestApi): Promise<string[]> {
  return (await api.call('report.list', {})).reports.map(({ reportId }) => reportId);
}

describe('reports that go', { timeout: 120_000 }, () => {
  it('F9 tests that are too old go by themselves and leave their digests; failovers, proofs of points and the newest stay', async (context) => {
    const { homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    const { pointId } = await verifiedCopy(homeApi);
    const { machineId } = await awayApi.call('vm.show', BOX);
    await away.close();
    const { dataDirectory } = away;
    const machine = { machineId, name: 'box' };
    const kept = await Promise.all([
      reportOf(dataDirectory, { daysAgo: 399, machine, kind: 'drill' }),
      reportOf(dataDirectory, { daysAgo: 900, machine, kind: 'unplanned' }),
      reportOf(dataDirectory, { daysAgo: 900, machine, attempts: [attemptOf(pointId)] }),
      reportOf(dataDirectory, { daysAgo: 900 }),
    ]);
    const gone = await reportOf(dataDirectory, { daysAgo: 401, machine, kind: 'drill' });
    const damaged = await reportOf(dataDirectory, { daysAgo: 900, machine });
    await writeFile(join(dataDirectory, 'reports', `${damaged}.json`), '{');
    // A process that was killed in the middle of a removal.
    const half = await reportOf(dataDirectory, { daysAgo: 1, machine });
    await writeFile(join(dataDirectory, 'reports', `${half}.json.removed`), '');
    const text = await readFile(join(dataDirectory, 'reports', `${gone}.json`), 'utf8');

    const api = await away.serve();
    await eventually(async () => ((await idsAt(api)).includes(gone) ? undefined : true));
    assert.deepEqual((await idsAt(api)).sort(), kept.toSorted());
    assert.ok(![gone, half].some((id) => existsSync(join(dataDirectory, 'reports', `${id}.json`))));
    assert.deepEqual(
      (await api.call('report.list', {})).unreadable.map(({ reportId }) => reportId),
      [damaged],
    );
    const { entries } = await api.call('audit.list', { query: {} });
    const [entry] = entries.filter(({ act, phase }) => act === 'report.remove' && phase === 'intent');
    const { report } = JSON.parse(text) as SignedReport;
    assert.deepEqual([entry!.actor, entry!.subject], ['site', gone]);
    assert.deepEqual(entry!.details, {
      ...{ kind: 'drill', verdict: 'passed', about: 'shop', sha256: reportDigest(report) },
    });

    // What is to be kept is asked for and changed, and outlives the process.
    const here = { environment: { ...process.env, WARMSITE_DATA: dataDirectory } };
    assert.match((await cli(['report', 'policy'], here)).output, /400 d/);
    assert.equal((await cli(['report', 'policy', '--keep-tests', '5m'], here)).exitCode, 2);
    assert.equal((await cli(['report', 'policy', '--keep-tests', 'always'], here)).exitCode, 0);
    await away.close();
    const late = await reportOf(dataDirectory, { daysAgo: 401, machine, kind: 'drill' });
    const again = await away.serve();
    assert.deepEqual(await again.call('report.policy', {}), {});
    const changed = await cli(['report', 'policy', '--keep-tests', '90d', '--json'], here);
    assert.deepEqual(JSON.parse(changed.output), { keepTestsMs: 90 * DAY_MS });
    const [act] = (await again.call('audit.list', { query: {} })).entries.filter(
      (one) => one.act === 'report.policy' && one.phase === 'intent',
    );
    assert.deepEqual(act!.details, { keepTestsMs: 90 * DAY_MS });
    assert.ok((await idsAt(again)).includes(late));
    await away.close();
    const last = await away.serve();
    await eventually(async () => ((await idsAt(last)).includes(late) ? undefined : true));
    assert.deepEqual((await idsAt(last)).sort(), kept.toSorted());
  });

  it('F9 what a person removes is gone for good, also when the job that it was about is still known', async (context) => {
    const { directory, homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const probes = [{ kind: 'serial' as const, pattern: 'never said', limitMs: 1 }];
    const test = { ...BOX, body: { probes } };
    const jobs = [
      await awayApi.call('failover.test', test),
      await awayApi.call('failover.test', test),
    ] as const;
    for (const job of jobs) await resultOf(awayApi, job);
    const [removed, left] = jobs.map(({ jobId }) => jobId) as [string, string];
    const here = {
      workingDirectory: directory,
      environment: { ...process.env, WARMSITE_DATA: away.dataDirectory },
    };
    assert.equal((await cli(['report', 'remove', removed], here)).exitCode, 2, 'nobody has given his word');
    const done = await cli(['report', 'remove', removed, '--discard'], here);
    assert.equal(done.exitCode, 0, done.messages);
    assert.deepEqual(await idsAt(awayApi), [left]);
    const params = { report: removed };
    await assert.rejects(awayApi.call('report.show', { params }), { code: 'REPORT_UNKNOWN' });
    await assert.rejects(awayApi.call('report.remove', { params }), { code: 'REPORT_UNKNOWN' });
    const [entry] = (await awayApi.call('audit.list', { query: {} })).entries.filter(
      ({ act, phase }) => act === 'report.remove' && phase === 'done',
    );
    assert.match(entry!.actor, /^operator:/);
    await away.close();
    const api = await away.serve();
    // Reports are made up one after the other: the one that was written after it is there.
    const next = await api.call('failover.test', test);
    await resultOf(api, next);
    assert.deepEqual((await idsAt(api)).sort(), [left, next.jobId].sort());
    assert.ok(existsSync(join(away.dataDirectory, 'reports', `${removed}.json.removed`)));
  });
});

function attemptOf(pointId: string): Report['attempts'][number] {
  const { report } = JSON.parse(sampleReport().toString()) as SignedReport;
  const [attempt] = report.attempts;
  return { ...attempt!, point: { ...attempt!.point, pointId } };
}
