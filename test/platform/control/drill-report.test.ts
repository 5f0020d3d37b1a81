/** Reports of drills of a real guest: what they prove of which boot, that this holds away from the site, and what a drill took of its host. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { JobView, ReportedAttempt, SignedReport } from '../../../src/api/index.ts';
import type { SignedApplicationProof, SignedBootProof } from '../../../src/failover/index.ts';
import { processesOfRun } from '../../../src/hypervisor/index.ts';
import { sha256 } from '../../../src/report/index.ts';
import type { TestApi } from '../../support/api.ts';
import { cpuPercentOf, processesInGroup, throttledOf } from '../../support/cpu-group.ts';
import { eventually } from '../../support/eventually.ts';
import { BOX, ended, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import { run as cli } from '../../unit/cli/fake-world.ts';

const MIB = 1024 * 1024;
/** What the lab guest has. */
const MEMORY_BYTES = 256 * MIB;
const HOUR_MS = 3_600_000;
/** Drawn by the kernel at each boot: what an assertion prints of it says in which boot it was run. */
const BOOT_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\s*$/;

/** A type whose copies claim something that only a booted guest can answer. */
const MARKED = {
  name: 'marked',
  aim: 'application' as const,
  assertions: [
    {
      ...{ name: 'booted', command: '/bin/sh', limitMs: 60_000 },
      arguments: ['-c', 'cat /proc/sys/kernel/random/boot_id && mount | grep -q " /data "'],
    },
  ],
};

/** The report of a drill that passed, with all that belongs to it, by the job as it ended. */
async function reportOf(api: TestApi, job: JobView) {
  assert.equal(job.state, 'done', JSON.stringify(job.failure));
  const { text } = await api.call('report.show', { params: { report: job.jobId } });
  const signed = JSON.parse(text) as SignedReport;
  const { report } = signed;
  assert.deepEqual([report.kind, report.verdict, report.machine!.name], ['drill', 'passed', 'box']);
  assert.deepEqual([report.missing, report.attempts.length], [[], 1]);
  const [attempt] = report.attempts as [ReportedAttempt];
  const { proof } = attempt.bootProof as SignedBootProof;
  const boot = [job.startedAtMs!, proof.startedAtMs, job.endedAtMs!];
  assert.deepEqual(
    boot,
    boot.toSorted((one, other) => one - other),
    'the proof is of this very boot',
  );
  assert.ok(report.rtoMs! > 0 && report.rtoMs! <= job.endedAtMs! - job.startedAtMs!);
  assert.deepEqual([proof.verdict, proof.nonce, attempt.nonce], ['passed', 'read', 'read']);
  assert.equal(proof.rtoMs, report.rtoMs);
  assert.deepEqual(attempt.probes, proof.probes);
  const picture = Buffer.from(signed.attachments[attempt.picture!.sha256]!, 'base64');
  assert.deepEqual(report.attachments, [sha256(picture)]);
  assert.equal(proof.picture!.sha256, sha256(picture));
  assert.equal(picture.subarray(1, 4).toString(), 'PNG');
  const [assertion] = attempt.assertions;
  assert.deepEqual([assertion!.name, assertion!.outcome], ['booted', 'held'], JSON.stringify(assertion));
  assert.match(assertion!.output!, BOOT_ID);
  const claim = (attempt.applicationProof as SignedApplicationProof).proof;
  assert.deepEqual([claim.verdict, claim.assertions[0]!.output], ['held', assertion!.output]);
  return { report, attempt, proof, bootId: assertion!.output! };
}

describe('the report of a drill', { timeout: 300_000 }, () => {
  it('F6 F9 has point, picture, proof of this very boot, RTO and what was claimed, holds away from the site, and the drill kept to its CPUs', async (context) => {
    const { t, directory, home, homeApi, away, awayApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    await homeApi.call('vm.add', { body: { attach } });
    const retention = { types: { marked: 3 } };
    await homeApi.call('vm.protect', { ...BOX, body: { every: {}, copyTypes: [MARKED], retention } });
    // For two at once: of what all may take each has the half.
    await awayApi.call('drill.budget', {
      body: { memoryBytes: 2 * MEMORY_BYTES, atOnce: 2, cpuPercent: 120 },
    });
    const policy = { copyTypes: ['marked'], proveWithinMs: HOUR_MS };
    await awayApi.call('drill.setSitePolicy', { body: policy });
    const created = await homeApi.call('point.create', { ...BOX, body: { type: 'marked', wait: true } });
    assert.ok('job' in created && created.job);
    const { pointId } = (await resultOf(homeApi, created.job)) as { pointId: string };
    await lab.stop();

    // The site begins it by itself.
    const branchId = await eventually(async () => {
      const branches = await awayApi.call('failover.list', BOX);
      return branches.find(({ purpose, running }) => purpose === 'test' && running)?.branchId;
    });
    const throttled = await eventually(async () => (await throttledOf(branchId)) || undefined);
    assert.equal(await cpuPercentOf(branchId), 60);
    assert.deepEqual(
      await processesInGroup(branchId),
      await processesOfRun(join(away.dataDirectory, 'run', branchId)),
    );
    context.diagnostic(`a boot that may take 60 % of a CPU: held up ${throttled} times when first looked at`);
    const [begun] = await awayApi.call('drill.list', BOX);
    const byItself = await ended(awayApi, begun!);
    const first = await reportOf(awayApi, byItself);
    assert.deepEqual([first.report.request.actor, first.attempt.branchId], ['site', branchId]);

    // The same point once more, for a person, and with all CPUs.
    await awayApi.call('drill.budget', { body: { cpuPercent: null } });
    const again = await awayApi.call('drill.now', { ...BOX, body: { point: pointId } });
    const second = await reportOf(awayApi, await ended(awayApi, again));
    assert.match(second.report.request.actor, /^operator:/);
    assert.notEqual(second.bootId, first.bootId, 'each has what was asked in its own boot');
    assert.notEqual(second.attempt.picture!.sha256, first.attempt.picture!.sha256);
    const shown = await awayApi.call('point.show', { params: { machine: 'box', point: pointId } });
    for (const { attempt, proof } of [first, second]) {
      assert.deepEqual([attempt.point.pointId, attempt.point.copyType], [pointId, 'marked']);
      assert.equal(attempt.point.sequence, shown.sequence);
      assert.equal(proof.statementDigest, attempt.point.statementDigest);
    }
    const { reports } = await awayApi.call('report.list', {});
    const drills = await awayApi.call('drill.list', BOX);
    for (const { report } of [first, second]) {
      const { kind, verdict, about, rtoMs } = reports.find(({ reportId }) => reportId === report.reportId)!;
      assert.deepEqual([kind, verdict, about, rtoMs], ['drill', 'passed', 'box', report.rtoMs]);
      assert.equal(drills.find(({ jobId }) => jobId === report.reportId)!.rtoMs, report.rtoMs);
    }

    // Away from both sites, with the key that the other one has confirmed.
    const key = join(directory, 'away.pem');
    const atHome = { workingDirectory: directory, environment: { WARMSITE_DATA: home.dataDirectory } };
    await writeFile(key, (await cli(['site', 'key', '--peer', 'away'], atHome)).output);
    const atAway = { workingDirectory: directory, environment: { WARMSITE_DATA: away.dataDirectory } };
    const files: string[] = [];
    for (const { report } of [first, second]) {
      for (const format of ['json', 'html']) {
        const exported = await cli(['report', 'export', report.reportId, '--format', format], atAway);
        assert.equal(exported.exitCode, 0, exported.messages);
        files.push(join(directory, `warmsite-report-${report.reportId}.${format}`));
      }
    }
    await home.close();
    await away.close();
    const verify = ['proof', 'verify', ...files, '--key', key, '--json'];
    const verified = await cli(verify, { workingDirectory: directory });
    assert.equal(verified.exitCode, 0, verified.output + verified.messages);
    for (const { checks } of JSON.parse(verified.output) as { checks: { what: string }[] }[]) {
      const said = checks.map(({ what }) => what);
      for (const what of ['boot proof of attempt 1', 'application proof of attempt 1'])
        assert.ok(said.includes(what), said.join());
    }
  });
});
