import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failovers } from '../../../src/failover/index.ts';
import { preparedBranch } from '../../../src/failover/prepared.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { branchChain, findBranch } from '../../../src/replica/index.ts';
import { leftOf } from '../../support/branch-traces.ts';
import {
  type FailoverSite,
  failoverSite,
  inBranch,
  layerDigests,
  running,
} from '../../support/failover-site.ts';

const MIB = 1024 * 1024;
/** What a guest writes that boots, does the little that it is asked to, and shuts down. */
const BOOT_BYTES_MAX = MIB;
const CONFIRMED = { confirmedOtherSideDown: true } as const;

function program(script: string) {
  return { name: 'revert', command: '/bin/sh', arguments: ['-c', script], limitMs: 60_000 };
}

/** The guest's own copy of its data at T0 is put back in the place of what was written until T1. */
const REVERT = 'rm -rf /data/live && mv /data/at-t0 /data/live && sync';

/** What fills the file that nobody writes to after T0. */
const UNCHANGED = 'as it was at T0';

/** What the branch's own layers hold, in guest bytes; fails the test if a part of the unchanged file is among them. */
async function ownData(site: FailoverSite, branchId: string): Promise<number> {
  const branch = findBranch(site.replica, branchId);
  let bytes = 0;
  for (const diskId of branch.diskIds) {
    await using reader = await site.sites.protectedTools.images.open(
      branchChain(site.replica, branch, diskId),
    );
    for (const { offset, length } of (await reader.ownExtents(1)).data) {
      const own = Buffer.alloc(length);
      await reader.readInto(own, offset);
      assert.ok(!own.includes(`${UNCHANGED}\n${UNCHANGED}\n`), `unchanged data within ${offset}+${length}`);
      bytes += length;
    }
  }
  return bytes;
}

test('S0.21 stray writes are taken out ahead of a failover, which then starts from the result with nothing left to do', async (t) => {
  const site = await failoverSite(t);
  const { failovers } = site;
  await site.change(
    `mkdir /data/live && echo T0 > /data/live/rows && yes '${UNCHANGED}' | head -c ${24 * MIB} > /data/big &&
     cp -r /data/live /data/at-t0 && sync && echo stray > /data/live/rows && echo more > /data/live/new`,
  );
  const pointId = await site.point();
  const { replica } = site;
  const before = await layerDigests(replica, pointId);
  const options = { programs: [program(REVERT)], graceMs: 60_000 };

  const report = await failovers.prepare(replica, pointId, { ...options, name: 'reverted' });
  assert.equal(report.verdict, 'passed', JSON.stringify(report, null, 1));
  assert.equal(report.branchId, null, 'nothing runs');
  const [prepared] = await failovers.list(replica);
  assert.deepEqual(
    [prepared?.purpose, prepared?.phase, prepared?.running, prepared?.name],
    ['prepared', 'prepared', false, 'reverted'],
  );
  assert.deepEqual(await layerDigests(replica, pointId), before, 'the parent has not changed');
  const ownBytes = await ownData(site, prepared!.branchId);
  t.diagnostic(`the prepared branch holds ${ownBytes} bytes of its own`);
  assert.ok(ownBytes < BOOT_BYTES_MAX, `${ownBytes} bytes`);

  // The site starts again in between.
  await failovers.close();
  const second = new Failovers(site.tools);
  t.after(() => second.close());
  await second.recover([replica]);
  await assert.rejects(second.restart(replica, 'reverted'), (error) =>
    isFailure(error, 'FAILOVER_BRANCH_PREPARED'),
  );
  const tested = await second.test(replica, { pointId }, { keep: true, name: 'look' });
  assert.equal(tested.attempts[0]?.preparedBranchId, prepared!.branchId);
  const look = running(tested);
  assert.equal(await inBranch(site, look, 'cat /data/live/rows; ls /data/live'), 'T0\nrows');
  await inBranch(site, look, 'echo scribble > /data/live/rows; sync');
  await assert.rejects(second.cleanup(replica, prepared!.branchId), (error) =>
    isFailure(error, 'BRANCH_NEEDED'),
  );
  assert.equal(replica.points.length, 1);

  const failed = await second.start(replica, { pointId }, CONFIRMED);
  assert.equal(await inBranch(site, running(failed), 'cat /data/live/rows; ls /data/live'), 'T0\nrows');
  assert.ok(!failed.steps.some(({ name }) => name === 'assertions'), 'nothing is run in the guest any more');
  for (const { branchId } of (await second.list(replica)).toReversed()) {
    await second.cleanup(replica, branchId);
    assert.deepEqual(await leftOf(site, branchId), []);
  }
  const asCut = running(await second.test(replica, { pointId }, { keep: true }));
  assert.equal(
    await inBranch(site, asCut, 'cat /data/live/rows'),
    'stray',
    'without it, the point as it was cut',
  );
});

test('S0.21 what cannot be prepared to its end leaves nothing, and failovers start from the point', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const { replica, failovers } = site;
  const report = await failovers.prepare(replica, pointId, {
    programs: [program('echo no snapshot here; exit 3')],
    graceMs: 60_000,
  });
  assert.equal(report.verdict, 'failed');
  assert.deepEqual(report.attempts[0]?.reasons, ['revert: exit code 3']);
  assert.deepEqual(await failovers.list(replica), []);
  const hung = await failovers.prepare(replica, pointId, {
    programs: [program('rm /etc/acpi/PWRF/00000080')],
    graceMs: 2000,
  });
  assert.deepEqual(hung.attempts[0]?.reasons, ['the guest did not shut down in time']);
  assert.deepEqual(await leftOf(site, hung.attempts[0]!.branchId), []);
  assert.equal(await preparedBranch(site.tools, replica, pointId), undefined);
  assert.equal((await failovers.test(replica, { pointId })).attempts[0]?.preparedBranchId, undefined);
});
