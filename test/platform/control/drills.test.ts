/** A recovery site that proves its points by itself: with guests that boot, one that does not, a failover, and its own death. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { DrillView, JobView } from '../../../src/api/index.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { endRun } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { TestApi } from '../../support/api.ts';
import { tracesOf } from '../../support/branch-traces.ts';
import { eventually } from '../../support/eventually.ts';
import { killablePair } from '../../support/killable-site.ts';
import { inGuest } from '../../support/lab-sites.ts';
import {
  BOX,
  ended,
  machineThatIsOff,
  pairedSites,
  resultOf,
  someonesMachine,
} from '../../support/paired-sites.ts';
import { verifiedCopy } from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;
/** What the lab guest has. */
const MEMORY_BYTES = 256 * MIB;
const HOUR_MS = 3_600_000;
const RETENTION = { types: { crash: 6, app: 6 } };

const drillsOf = (api: TestApi) => api.call('drill.list', BOX);
const outcomesOf = (drills: readonly DrillView[]) =>
  drills.map(({ sequence, outcome }) => `${sequence} ${outcome}`);

/** The alert of a code that stands; undefined if none does. */
async function standing(api: TestApi, code: string) {
  return (await api.call('alert.list', {})).find((alert) => alert.code === code);
}

async function appCopy(api: TestApi): Promise<{ pointId: string; sequence: number }> {
  const made = await api.call('point.create', { ...BOX, body: { type: 'app', wait: true } });
  assert.ok('job' in made && made.job);
  return (await resultOf(api, made.job)) as { pointId: string; sequence: number };
}

/** The branch of the drill that is under way, once its guest runs. */
function branchOfDrill(api: TestApi, except: readonly string[] = []): Promise<string> {
  return eventually(async () => {
    const branches = await api.call('failover.list', BOX);
    return branches.find(
      ({ branchId, purpose, running }) => purpose === 'test' && running && !except.includes(branchId),
    )?.branchId;
  });
}

describe('drills', { timeout: 300_000 }, () => {
  it('F6 S0.18 points that arrive by schedule are proven within the budget; one that does not boot is told, and taken by no failover', async (context) => {
    const { t, directory, away, homeApi, awayApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    await homeApi.call('vm.add', { body: { attach } });
    await homeApi.call('vm.protect', {
      ...BOX,
      body: { every: { crash: 1000, app: 2000 }, retention: RETENTION },
    });
    await away.until(async () => {
      const { machines } = await awayApi.call('site.show', {});
      return machines.replicas === 1 ? true : undefined;
    });

    await awayApi.call('drill.budget', { body: { memoryBytes: MEMORY_BYTES - MIB } });
    await awayApi.call('drill.setSitePolicy', { body: { proveWithinMs: HOUR_MS } });
    const told = await away.until(() => standing(awayApi, 'DRILL_IMPOSSIBLE'));
    assert.match(told.message, /needs 256 MiB, and all drills together may take 255 MiB/);
    const status = await awayApi.call('drill.budget', {
      body: { memoryBytes: MEMORY_BYTES, atOnce: 4, cpuPercent: 600, cpuWeight: 50 },
    });
    assert.equal(status.machines[0]!.from, 'site');
    await away.until(async () => {
      const arrived = await awayApi.call('point.list', BOX);
      return arrived.filter(({ copyType }) => copyType === 'app').length >= 2 ? true : undefined;
    });
    await homeApi.call('vm.policy', { ...BOX, body: { every: {} } });
    // Copies arrive in their order: with this one all that the schedule has made are there.
    await verifiedCopy(homeApi);
    const points = await away.until(async () => {
      const [machine] = (await awayApi.call('drill.status', {})).machines;
      const arrived = await awayApi.call('point.list', BOX);
      const isMissing = arrived.some(({ copyType, proofs }) => copyType === 'app' && !proofs.boot?.passed);
      return machine!.state === 'proven' && !isMissing ? arrived : undefined;
    });
    const proven = (await drillsOf(awayApi)).filter(({ outcome }) => outcome === 'passed');
    assert.ok(proven.length >= 2);
    assert.equal(await standing(awayApi, 'DRILL_IMPOSSIBLE'), undefined);
    for (const { rtoMs, startedAtMs, endedAtMs } of proven) {
      assert.ok(rtoMs! > 0 && rtoMs! <= endedAtMs! - startedAtMs!);
    }
    // The budget has room for one guest: none began before the one before it had ended.
    const all = (await drillsOf(awayApi)).filter(({ endedAtMs }) => endedAtMs !== undefined).toReversed();
    for (const [index, { startedAtMs }] of all.entries()) {
      if (index > 0) assert.ok(startedAtMs! >= all[index - 1]!.endedAtMs!, JSON.stringify(all));
    }
    for (const { copyType, proofs } of points)
      assert.ok(copyType === 'app' || !proofs.boot, 'others are left');
    const { entries } = await awayApi.call('audit.list', {});
    assert.ok(entries.some(({ act, actor }) => act === 'drill.run' && actor === 'site'));

    await inGuest(lab.agentPath, 'dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync');
    const probed = (limitMs: number) => ({
      ...BOX,
      body: { policy: { proveWithinMs: HOUR_MS, probes: [{ kind: 'agent' as const, limitMs }] } },
    });
    await awayApi.call('drill.setPolicy', probed(3000));
    const corrupt = await appCopy(homeApi);
    const failed = await away.until(() => standing(awayApi, 'DRILL_FAILED'));
    assert.equal(failed.severity, 'critical');
    assert.match(failed.message, new RegExp(`^point ${corrupt.sequence} of box does not pass its drill: `));
    assert.ok(outcomesOf(await drillsOf(awayApi)).includes(`${corrupt.sequence} failed`));
    const [row] = (await awayApi.call('drill.status', {})).machines;
    assert.ok(row!.state === 'failing' || row!.state === 'running');
    assert.notEqual(row!.newestProven!.sequence, corrupt.sequence);
    assert.ok(row!.newestProven!.rtoMs! > 0);

    await awayApi.call('drill.pause', { body: { isPaused: true } });
    await away.until(async () => {
      const underWay = (await drillsOf(awayApi)).some(({ endedAtMs }) => endedAtMs === undefined);
      return underWay ? undefined : true;
    });
    // A person has it looked at once more, and is at it when the failover begins, which takes the memory and another point.
    await awayApi.call('drill.setPolicy', probed(120_000));
    const again = await awayApi.call('drill.now', { ...BOX, body: { point: corrupt.pointId } });
    const branchId = await branchOfDrill(awayApi);
    const rather = { confirmOtherSideDown: true, wish: { provenWorthMs: HOUR_MS } } as const;
    const begun = await awayApi.call('failover.start', { ...BOX, body: rather });
    const report = (await resultOf(awayApi, begun)) as FailoverReport;
    assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
    const { newestProven } = (await awayApi.call('drill.status', {})).machines[0]!;
    assert.deepEqual(
      report.attempts.map(({ point }) => point.pointId),
      [newestProven!.pointId],
    );
    assert.match(report.attempts[0]!.reason, /proven to boot and only/);
    const gone: JobView = await ended(awayApi, again);
    assert.equal(gone.failure!.code, 'FAILOVER_GAVE_WAY');
    const began = report.startedAtMs + report.rtoMs!;
    assert.ok(gone.endedAtMs! <= began, 'its memory was free before the guest ran');
    const { machineId } = await awayApi.call('vm.show', BOX);
    const at = {
      runDirectory: join(away.dataDirectory, 'run'),
      branchesDirectory: join(away.dataDirectory, 'replicas', machineId, 'branches'),
    };
    assert.deepEqual(await tracesOf(at, branchId), []);
  });

  it('F6 a site that is killed in the middle of a drill leaves nothing of it behind and repeats it; a proof that is missing is told meanwhile', async (context) => {
    const { t, directory, away, homeApi, awayApi } = await killablePair(context);
    const path = join(directory, 'box.qcow2');
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(MIB)]);
    await homeApi.call('vm.add', { body: machineThatIsOff({ path, sizeBytes: MIB, format: 'qcow2' }) });
    await homeApi.call('vm.protect', { ...BOX, body: { schedules: [], retention: RETENTION } });
    const { sequence } = await verifiedCopy(homeApi);

    let api = awayApi;
    const { machineId } = await api.call('vm.show', BOX);
    const at = {
      runDirectory: join(away.dataDirectory, 'run'),
      branchesDirectory: join(away.dataDirectory, 'replicas', machineId, 'branches'),
    };
    const branches: string[] = [];
    t.after(async () => {
      for (const id of branches) await endRun(join(at.runDirectory, id), systemClock);
    });
    const policy = { copyTypes: ['crash'], proveWithinMs: 1000 };
    await api.call('drill.setPolicy', { ...BOX, body: { policy } });
    await eventually(() => standing(api, 'DRILL_IMPOSSIBLE'));
    // A guest without a boot loader: it runs, and never says the word.
    const probes = [{ kind: 'serial' as const, pattern: 'never', limitMs: 300_000 }];
    await api.call('drill.setPolicy', { ...BOX, body: { policy: { ...policy, probes } } });
    branches.push(await branchOfDrill(api));
    await eventually(() => standing(api, 'POINT_UNPROVEN'));
    assert.equal(await standing(api, 'DRILL_IMPOSSIBLE'), undefined);
    await away.end('SIGKILL');

    api = await away.serve();
    branches.push(await branchOfDrill(api, branches));
    assert.deepEqual(await tracesOf(at, branches[0]!), []);
    assert.deepEqual(outcomesOf(await drillsOf(api)), [`${sequence} running`, `${sequence} interrupted`]);
    assert.ok(await standing(api, 'POINT_UNPROVEN'), 'the missing proof outlives the process');

    await api.call('drill.pause', { body: { isPaused: true, machine: 'box' } });
    const [running] = await drillsOf(api);
    await api.call('job.cancel', { params: { job: running!.jobId } });
    const job = await api.call('job.show', { params: { job: running!.jobId }, query: { waitMs: '60000' } });
    assert.equal(job.state, 'cancelled');
    assert.deepEqual(await tracesOf(at, branches[1]!), []);
    const status = await api.call('drill.pause', { body: { isPaused: false, machine: 'box' } });
    assert.deepEqual(
      [status.machines[0]!.state, status.machines[0]!.isOverdue],
      ['unproven', true],
      'what a person cancels is not drilled again by itself',
    );
    await api.call('drill.clearPolicy', BOX);
    await eventually(async () => ((await standing(api, 'POINT_UNPROVEN')) ? undefined : true));
    assert.deepEqual((await api.call('drill.status', {})).machines, []);
  });
});
