import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { JobView, PointView } from '../../../src/api/index.ts';
import { siteFiles } from '../../../src/control/site-files.ts';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { endRun } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { TestApi } from '../../support/api.ts';
import { BOX, ended, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import type { TestSite } from '../../support/served-sites.ts';

async function reportOf(api: TestApi, begun: JobView): Promise<FailoverReport> {
  return (await resultOf(api, begun)) as FailoverReport;
}

/** Resolves when the recovery site holds a point that `wanted` accepts. */
async function published(
  site: TestSite,
  api: TestApi,
  wanted: (point: PointView) => boolean,
): Promise<PointView> {
  return site.until(async () => {
    const machines = await api.call('vm.list');
    const points = machines.length > 0 ? await api.call('point.list', BOX) : [];
    return points.find(wanted);
  });
}

describe('a disaster, over the API', { timeout: 300_000 }, () => {
  it('S0.17 S0.26 a machine that was attached to fails over, its old site is fenced, and clean-up leaves nothing', async (context) => {
    const { t, directory, home, away, homeApi, awayApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    const added = await homeApi.call('vm.add', { body: { attach } });
    assert.deepEqual(
      added.protected!.disks.map(({ chain }) => chain.length),
      [1, 1],
    );
    await homeApi.call('vm.protect', { ...BOX, body: { every: { crash: 2000, app: 10_000 } } });
    const first = home.next((event) => event.event === 'point' && event.change === 'acknowledged');
    const point = await published(away, awayApi, ({ consistency }) => consistency === 'application');
    assert.equal(point.degraded, undefined);
    await first;
    const { protected: shown } = await homeApi.call('vm.show', BOX);
    assert.ok(shown!.replication!.rpo.actualMs! < 30_000);

    const test = await reportOf(awayApi, await awayApi.call('failover.test', { ...BOX, body: {} }));
    assert.equal(test.verdict, 'passed', JSON.stringify(test.attempts));
    assert.deepEqual(await awayApi.call('failover.list', BOX), []);
    const proven = await awayApi.call('point.show', {
      params: { machine: 'box', point: test.point.pointId },
    });
    assert.ok(proven.proofs.boot!.passed);

    // The host of the machine is lost, but not its site, which must not go on.
    await lab.kill();
    const fenced = home.next(
      (event) => event.event === 'alert' && event.alert.code === 'REPLICATION_CONFLICT',
    );
    const misnamed = await ended(
      awayApi,
      await awayApi.call('failover.start', {
        ...BOX,
        body: { confirmOtherSideDown: true, networks: { lna: { kind: 'bridge', bridge: 'br0' } } },
      }),
    );
    assert.equal(misnamed.failure?.code, 'FAILOVER_NIC_UNKNOWN');
    assert.match(misnamed.failure.message, /no NIC lna; it has /);
    const report = await reportOf(
      awayApi,
      await awayApi.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } }),
    );
    assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
    assert.equal(report.epoch, 2, 'a refused failover raises no epoch');
    assert.ok(report.rtoMs! > 0);
    assert.equal((await awayApi.call('vm.show', BOX)).replica!.state, 'failed-over');
    await homeApi.call('point.create', { ...BOX, body: { type: 'crash' } });
    await fenced;
    assert.equal((await homeApi.call('vm.show', BOX)).protected!.replication!.phase, 'blocked');

    await away.close();
    const again = await away.serve();
    const [branch] = await again.call('failover.list', BOX);
    assert.deepEqual(
      [branch!.branchId, branch!.running],
      [report.branchId, true],
      'it runs on without the site',
    );
    // The host is started anew: no machine runs, the files are there.
    await away.close();
    await endRun(join(siteFiles(away.dataDirectory).run, branch!.branchId), systemClock);
    const rebooted = await away.serve();
    const [stopped] = await rebooted.call('failover.list', BOX);
    assert.deepEqual([stopped!.running, stopped!.state], [false, 'stopped']);
    const ofBranch = { params: { machine: 'box', branch: branch!.branchId } };
    const restarted = await reportOf(rebooted, await rebooted.call('failover.restart', ofBranch));
    assert.equal(restarted.verdict, 'passed', JSON.stringify(restarted.attempts));
    assert.deepEqual([restarted.branchId, restarted.epoch], [branch!.branchId, 2]);
    const twice = await ended(rebooted, await rebooted.call('failover.restart', ofBranch));
    assert.equal(twice.failure?.code, 'FAILOVER_RUNS_ALREADY');
    const { entries } = await rebooted.call('audit.list');
    assert.ok(entries.some(({ act }) => act === 'failover.restart'));
    const removed = await rebooted.call('failover.cleanup', ofBranch);
    assert.deepEqual(await reportOf(rebooted, removed), { removed: true });
    assert.deepEqual(await rebooted.call('failover.list', BOX), []);
  });
});
