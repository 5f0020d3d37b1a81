import assert from 'node:assert/strict';
import { test } from 'node:test';
import { candidatesOf, pointProofs } from '../../../src/failover/candidates.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import {
  failoverSite,
  inBranch,
  layerDigests,
  pointThatSwitchesOff,
  pointWithoutBootSector,
  READ_MARK,
  running,
} from '../../support/failover-site.ts';
import { sized } from '../../support/size.ts';

/** Long for a boot, also by translation on a host that is busy. */
const BOOT_LIMIT_MS = 30_000;
const CONFIRMED = { confirmedOtherSideDown: true } as const;

test('S0.17 S0.19 S0.22 a chosen point runs, stays as it was, and can be exchanged for another', async (t) => {
  const site = await failoverSite(t);
  const { failovers, machine, sites } = site;
  const [first, second] = await site.pointsMarked('first', 'second');
  const { replica } = site;
  const before = await layerDigests(replica, first);

  const report = await failovers.start(replica, { pointId: first }, CONFIRMED);
  const branchId = running(report);
  assert.equal(report.point.pointId, first);
  assert.equal(await inBranch(site, branchId, READ_MARK), 'first');
  assert.equal(replica.record.epoch, 2);
  assert.match(report.warnings.join('\n'), /both copies take writes/);
  await assert.rejects(failovers.start(replica, { pointId: second }, CONFIRMED), (error) =>
    isFailure(error, 'FAILOVER_RUNS_ALREADY'),
  );

  await machine.cut('crash');
  await assert.rejects(
    machine.replicate(sites.target),
    (error) => isFailure(error, 'REPLICATION_CONFLICT'),
    'the old source is refused',
  );

  const strayMiB = sized({ what: 'S0.19: MiB that a branch writes', normal: 25, full: 100 });
  await inBranch(site, branchId, `dd if=/dev/urandom of=/data/stray bs=1M count=${strayMiB} && sync`);
  await verifyPoint(sites.replicaTools, replica, first);
  assert.deepEqual(await layerDigests(replica, first), before, 'the parent has not changed');

  assert.equal(await failovers.cleanup(replica, branchId), true);
  const other = running(await failovers.start(replica, { pointId: second }, CONFIRMED));
  assert.equal(await inBranch(site, other, `${READ_MARK}; ls /data/stray 2>/dev/null || true`), 'second');
  assert.equal(replica.record.epoch, 3);
});

test('S0.18 a point that does not boot is given up for the next one, and both attempts are told', async (t) => {
  const site = await failoverSite(t);
  const { failovers } = site;
  const good = await site.point();
  const bad = await pointThatSwitchesOff(site);
  const { replica } = site;

  const probes = [{ kind: 'agent', limitMs: BOOT_LIMIT_MS }] as const;
  const report = await failovers.start(replica, {}, { ...CONFIRMED, probes });
  const branchId = running(report);
  assert.deepEqual(
    report.attempts.map(({ point, verdict }) => [point.pointId, verdict]),
    [
      [bad, 'failed'],
      [good, 'passed'],
    ],
  );
  assert.equal(report.attempts[1]?.branchId, branchId);
  const spentMs = report.attempts
    .flatMap(({ steps }) => steps)
    .filter(({ name }) => name === 'start' || name === 'probes')
    .reduce((sum, { durationMs }) => sum + durationMs, 0);
  assert.ok(report.rtoMs! > spentMs, 'the time of the failed attempt counts');
  const views = await failovers.list(replica);
  assert.deepEqual(
    views.map(({ phase, running }) => [phase, running]),
    [
      ['failed', false],
      ['probed', true],
    ],
    'the files of the failed attempt are kept, its machine is not',
  );
});

test('S0.18 a point that failed to boot in a rehearsal is tried last', async (t) => {
  const site = await failoverSite(t);
  const { failovers } = site;
  const good = await site.point();
  const bad = await pointWithoutBootSector(site);
  const { replica } = site;
  const order = async () =>
    candidatesOf(replica, {}, await pointProofs(nodeFiles, replica)).map(({ pointId }) => pointId);
  assert.deepEqual(await order(), [bad, good]);
  const probes = [{ kind: 'agent', limitMs: 3_000 }] as const;
  const tested = await failovers.test(replica, { pointId: bad }, { probes });
  assert.equal(tested.verdict, 'failed', 'a boot that fails has no proof');
  assert.equal(tested.branchId, null);
  assert.deepEqual(await order(), [good, bad]);
});

test('a failover is refused without the word that the other side is down', async (t) => {
  const site = await failoverSite(t);
  await site.point();
  const unconfirmed = { confirmedOtherSideDown: false } as unknown as typeof CONFIRMED;
  await assert.rejects(site.failovers.start(site.replica, {}, unconfirmed), (error) =>
    isFailure(error, 'FAILOVER_UNCONFIRMED'),
  );
  await assert.rejects(
    site.failovers.start(site.replica, { wish: { atLeast: 'application' } }, CONFIRMED),
    (error) => isFailure(error, 'FAILOVER_NO_POINT'),
  );
  assert.equal(site.replica.record.epoch, 1, 'nothing has changed');
});
