import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { CpuGroups, Failovers } from '../../../src/failover/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { leftOf } from '../../support/branch-traces.ts';
import { cpuStatOf, throttledOf } from '../../support/cpu-group.ts';
import { failoverSite, inBranch, running } from '../../support/failover-site.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const MIB = 1024 * 1024;
const CONFIRMED = { confirmedOtherSideDown: true } as const;

test('S0.23 a test takes no more of its host than it may, and ends when its time has come', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const { replica, failovers, tools } = site;
  const rateBytes = 4 * MIB;
  const limits = {
    ...{ memoryBytes: 160 * MIB, cpus: 2, cpuPercent: 60, cpuWeight: 50 },
    diskBytesPerSecond: rateBytes,
  };
  const options = { keep: true, limits, lifetimeMs: 3_600_000 };
  const branchId = running(await failovers.test(replica, { pointId }, options));
  const kibOfMemory = Number(
    await inBranch(site, branchId, "sed -n 's/MemTotal: *//p' /proc/meminfo | cut -d' ' -f1"),
  );
  assert.ok(kibOfMemory < 160 * 1024 && kibOfMemory > 80 * 1024, `${kibOfMemory} KiB of memory`);
  assert.equal(await inBranch(site, branchId, 'grep -c ^processor /proc/cpuinfo'), '2');

  const throttled = await throttledOf(branchId);
  assert.ok(throttled! > 0, 'a boot wants more than it may have');

  const written = 4 * rateBytes;
  const sinceMs = systemClock.monotonicMs();
  await inBranch(site, branchId, `dd if=/dev/urandom of=/data/much bs=1M count=${written / MIB} && sync`);
  const tookMs = systemClock.monotonicMs() - sinceMs;
  t.diagnostic(`throttled ${throttled} times; ${written / MIB} MiB written in ${Math.round(tookMs)} ms`);
  assert.ok(tookMs > (1000 * (written - rateBytes)) / rateBytes, `${tookMs} ms for ${written} bytes`);

  await failovers.tendTests([replica]);
  const [view] = await failovers.list(replica);
  assert.equal(view?.running, true, 'its time has not come');
  const { endsAtMs, ...taken } = view.limits;
  assert.deepEqual(taken, limits);
  await failovers.close();
  // The site starts again, two hours later.
  const clock = { ...systemClock, wallMs: () => systemClock.wallMs() + 7_200_000 };
  assert.ok(endsAtMs! < clock.wallMs());
  const later = new Failovers({ ...tools, clock });
  t.after(() => later.close());
  await later.recover([replica]);
  assert.equal((await later.list(replica))[0]?.running, true);
  await later.tendTests([replica]);
  assert.deepEqual(await later.list(replica), []);
  assert.deepEqual(await leftOf(site, branchId), []);
  assert.equal(await cpuStatOf(branchId), '', 'its CPU group is gone');
});

test('S0.23 tests obey the rules of the site, and failovers do not', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const { replica } = site;
  let freeBytes = 10 * MIB;
  let mostRunning = 1;
  const failovers = new Failovers({
    ...site.tools,
    testRules: () => ({ mostRunning, freeFloorBytes: 100 * MIB }),
    freeBytes: async () => freeBytes,
  });
  t.after(() => failovers.close());
  const begin = () => failovers.test(replica, { pointId }, { keep: true });

  await assert.rejects(begin(), (error) => isFailure(error, 'FAILOVER_SPACE_LOW'));
  freeBytes = 1000 * MIB;
  // Which of them is first is nobody's to say.
  const [begun, ...others] = await Promise.allSettled([begin(), begin()]).then((both) =>
    both.toSorted((a) => (a.status === 'fulfilled' ? -1 : 1)),
  );
  assert.ok(begun?.status === 'fulfilled', JSON.stringify(begun));
  const branchId = running(begun.value);
  assert.deepEqual(
    others.map((other) => other.status === 'rejected' && isFailure(other.reason, 'FAILOVER_TESTS_TOO_MANY')),
    [true],
  );
  await assert.rejects(begin(), (error) => isFailure(error, 'FAILOVER_TESTS_TOO_MANY'));
  assert.equal((await failovers.list(replica)).length, 1, 'what is refused leaves nothing');

  freeBytes = 99 * MIB;
  const told = await failovers.tendTests([replica]);
  assert.ok(isFailure(told, 'FAILOVER_SPACE_LOW'));
  assert.equal((await failovers.list(replica))[0]?.paused, true);
  const live = running(await failovers.start(replica, { pointId }, CONFIRMED));
  assert.ok(await failovers.tendTests([replica]));
  assert.equal(await inBranch(site, live, 'echo alive'), 'alive');
  const views = new Map((await failovers.list(replica)).map((view) => [view.branchId, view.paused]));
  assert.deepEqual([views.get(branchId), views.get(live)], [true, false]);

  freeBytes = 105 * MIB;
  assert.ok(await failovers.tendTests([replica]), 'a little more than the floor is not yet enough to go on');
  freeBytes = 200 * MIB;
  assert.equal(await failovers.tendTests([replica]), undefined);
  assert.equal(await inBranch(site, branchId, 'echo goes on'), 'goes on');
  mostRunning = 0;
  await failovers.stop(replica, branchId, { graceMs: 0 });
  await assert.rejects(failovers.restart(replica, branchId), (error) =>
    isFailure(error, 'FAILOVER_TESTS_TOO_MANY'),
  );
});

test('S0.23 a limit that this host cannot hold is refused before anything is started', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const empty = await temporaryDirectory(t);
  const failovers = new Failovers({ ...site.tools, cpuGroups: new CpuGroups(systemClock, empty) });
  t.after(() => failovers.close());
  const limits = { cpuPercent: 50 };
  await assert.rejects(
    failovers.test(site.replica, { pointId }, { limits }),
    (error) => isFailure(error, 'FAILOVER_LIMIT_UNAVAILABLE') && /no controller for CPUs/.test(error.message),
  );
  assert.deepEqual(await failovers.list(site.replica), []);
});

test('S0.26 the CPU group of a branch goes when the last process in it has', async (t) => {
  const groups = new CpuGroups(systemClock);
  const branchId = '0123456789abcdefghjkmnpqrw';
  t.after(() => groups.remove(branchId));
  await groups.make(branchId, { cpuPercent: 50 });
  const child = spawn('sleep', ['300'], { stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));
  await groups.enter(branchId, [child.pid!]);
  const removed = groups.remove(branchId);
  child.kill('SIGKILL');
  await removed;
  assert.equal(await cpuStatOf(branchId), '');
});
