import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LedgerCheck, LedgerPort } from '../../../lab/index.ts';
import { candidatesOf, pointProofs } from '../../../src/failover/candidates.ts';
import type { AttemptReport, StepReport } from '../../../src/failover/report.ts';
import {
  type Hypervisor,
  type ImageFile,
  QemuHypervisor,
  runPaths,
  type StartRequest,
} from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import type { Probe, ProbeResult } from '../../../src/probe/index.ts';
import { branchChain, findBranch, verifyPoint } from '../../../src/replica/index.ts';
import {
  failoverSite,
  failoversOf,
  inBranch,
  inGuest,
  layerDigests,
  pointThatSwitchesOff,
  pointWithoutBootSector,
  READ_MARK,
  running,
} from '../../support/failover-site.ts';
import { copyAndSend, type LabSites, labSites, ledgerOf } from '../../support/lab-sites.ts';
import { sized } from '../../support/size.ts';
import { startingBy } from '../../support/starting-by.ts';
import type { TwoSites } from '../../support/two-sites.ts';

/** Long for a boot, also by translation on a host that is busy. */
const BOOT_LIMIT_MS = 30_000;
/** What the exchange of a point for another may take beside the boot. */
const EXCHANGE_LIMIT_MS = 10_000;
const CONFIRMED = { confirmedOtherSideDown: true } as const;

/** A point at which the ledger ends with `last`. */
interface LedgerPoint {
  readonly pointId: string;
  readonly last: number;
}

/** A copy of a machine that stands still for it, so that what its guest has written by then is known. */
async function ledgerPoint({ machine, sites, replica }: LabSites, ledger: LedgerPort): Promise<LedgerPoint> {
  const { seq } = await ledger.next();
  await machine.running!.pause();
  // What the guest has said before it stood still lies in the socket.
  await new Promise(setImmediate);
  const said = ledger.last!.seq;
  assert.ok(said >= seq);
  const { pointId } = await copyAndSend(machine, sites.target);
  await machine.running!.resume();
  const last = (await ledgerIn(sites, (diskId) => replica().chain(pointId, diskId))).last;
  // A record is durable before it is told: at most one can have been written and not yet told.
  assert.ok(last === said || last === said + 1, `the point ends with ${last}; ${said} had been told by then`);
  return { pointId, last };
}

async function ledgerIn(
  { protectedTools }: TwoSites,
  chainOf: (diskId: 'system' | 'data') => readonly ImageFile[],
): Promise<LedgerCheck> {
  const check = await ledgerOf(protectedTools.images, chainOf);
  assert.ok(check.contiguous, `the ledger is torn: ${JSON.stringify(check)}`);
  return check;
}

/** Of tests that wait for guests that never answer, on a host that is busy. */
const NONE_ANSWERS = { timeout: 300_000 } as const;

/** A probe that waits as long as a boot may take that took so long when it went well, and not longer. */
function agentAfter(bootMs: number): Probe {
  return { kind: 'agent', limitMs: Math.ceil(3 * bootMs) };
}

/** The guest of an attempt started, ran for as long as it was given, and nothing else is said against it. */
function assertFailedByProbe({ reasons, probes: results, steps }: AttemptReport, asked: readonly Probe[]) {
  const [{ probe, passed, reason, durationMs }] = results as [ProbeResult];
  assert.deepEqual([[probe], passed], [asked, false]);
  assert.deepEqual(reasons, [`probe agent: ${reason}`]);
  // Timers count whole milliseconds: one may fire up to a millisecond early by a finer clock.
  assert.ok(durationMs > probe.limitMs! - 1, `given up after ${durationMs} ms: ${reason}`);
  assert.ok(steps.some(({ name }) => name === 'start'));
}

/** A hypervisor that tells what a machine is to be started with before its guest can write. */
function toldBeforeStart(tell: (request: StartRequest) => Promise<void>): Hypervisor {
  const hypervisor = new QemuHypervisor({ clock: systemClock });
  return startingBy(hypervisor, async (request) => {
    await tell(request);
    return hypervisor.start(request);
  });
}

test('S0.17 S0.19 S0.22 a point in the middle runs from its own last record on, stays as it was, and is exchanged for a later one in seconds', async (t) => {
  const lab = await labSites(t);
  const { machine, sites } = lab;
  const startedWith: number[] = [];
  const { failovers, tools } = await failoversOf(
    t,
    sites,
    toldBeforeStart(async ({ disks }) => {
      startedWith.push((await ledgerIn(sites, (diskId) => disks[diskId]!)).last);
    }),
  );
  const inside = (branchId: string, script: string) =>
    inGuest(runPaths(join(tools.runDirectory, branchId)), script);

  const ledger = await lab.ledger();
  const points: LedgerPoint[] = [];
  for (let count = 0; count < 3; count++) points.push(await ledgerPoint(lab, ledger));
  const [, second, third] = points as [LedgerPoint, LedgerPoint, LedgerPoint];
  const replica = lab.replica();
  const before = await layerDigests(replica, third.pointId);

  const report = await failovers.start(replica, { pointId: second.pointId }, CONFIRMED);
  const branchId = running(report);
  assert.equal(report.point.pointId, second.pointId);
  assert.deepEqual(startedWith, [second.last]);
  assert.equal(replica.record.epoch, 2);
  assert.match(report.warnings.join('\n'), /both copies take writes/);
  await assert.rejects(failovers.start(replica, { pointId: third.pointId }, CONFIRMED), (error) =>
    isFailure(error, 'FAILOVER_RUNS_ALREADY'),
  );

  await machine.cut('crash');
  await assert.rejects(
    machine.replicate(sites.target),
    (error) => isFailure(error, 'PROTECTION_FENCED'),
    'the old source is refused',
  );
  await machine.running!.quit();

  const strayMiB = sized({ what: 'S0.19: MiB that a branch writes', normal: 25, full: 100 });
  await inside(branchId, `dd if=/dev/urandom of=/data/stray bs=1M count=${strayMiB} && sync`);
  await verifyPoint(sites.replicaTools, replica, second.pointId);
  assert.deepEqual(await layerDigests(replica, third.pointId), before, 'the parents have not changed');
  await failovers.stop(replica, branchId, { graceMs: 0 });
  const branch = findBranch(replica, branchId);
  const first = await ledgerIn(sites, (diskId) => branchChain(replica, branch, diskId));
  assert.ok(first.last > second.last, 'the guest has gone on from there with records of its own');

  const sinceMs = systemClock.monotonicMs();
  assert.equal(await failovers.cleanup(replica, branchId), true);
  const exchanged = await failovers.start(replica, { pointId: third.pointId }, CONFIRMED);
  const tookMs = systemClock.monotonicMs() - sinceMs;
  const other = running(exchanged);
  const [{ durationMs: bootMs }] = exchanged.steps.filter(({ name }) => name === 'probes') as [StepReport];
  const own = Math.round(tookMs - bootMs);
  t.diagnostic(`exchanged for another point in ${own} ms and a boot of ${Math.round(bootMs)} ms`);
  assert.ok(own < EXCHANGE_LIMIT_MS, `${own} ms beside the boot`);
  assert.deepEqual(startedWith, [second.last, third.last], 'nothing of what the first one wrote');
  assert.equal(await inside(other, 'ls /data/stray 2>/dev/null || true'), '');
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

test(
  'S0.18 an application-consistent point whose guest never answers is given up by its probe, and the next one runs',
  NONE_ANSWERS,
  async (t) => {
    const site = await failoverSite(t);
    const { machine, failovers } = site;
    const inSource = (script: string) => inGuest(machine.record.sockets, script);
    const sinceMs = systemClock.monotonicMs();
    await machine.start();
    await inSource('true');
    const probes = [agentAfter(systemClock.monotonicMs() - sinceMs)];
    const good = await site.point('app');
    await inSource('dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync');
    const bad = await site.point('app');
    await machine.running!.quit();
    const { replica } = site;

    const report = await failovers.start(replica, {}, { ...CONFIRMED, probes });
    const branchId = running(report);
    assert.equal(report.chosenBy, 'selection');
    assert.deepEqual(
      report.attempts.map(({ point, reason, verdict }) => [
        point.pointId,
        point.consistency,
        reason,
        verdict,
      ]),
      [
        [bad, 'application', 'the newest point', 'failed'],
        [good, 'application', 'the next in rank', 'passed'],
      ],
    );
    const [failed, passed] = report.attempts as [AttemptReport, AttemptReport];
    assertFailedByProbe(failed, probes);
    assert.deepEqual(
      passed.probes.map(({ probe, passed }) => [probe.kind, passed]),
      [['agent', true]],
    );
    assert.deepEqual([passed.branchId, report.point.pointId], [branchId, good]);
    assert.ok(report.rtoMs! > failed.probes[0]!.durationMs, 'the wait for the point that failed counts');
    assert.equal(await inBranch(site, branchId, 'echo answers'), 'answers');
  },
);

test(
  'S0.18 the newest proven point is tried before newer ones, and then the others: all of them are in the report',
  NONE_ANSWERS,
  async (t) => {
    const site = await failoverSite(t);
    const { failovers } = site;
    const [older, proven] = await site.pointsMarked('older', 'proven');
    const { replica } = site;
    const tested = await failovers.test(replica, { pointId: proven });
    assert.equal(tested.verdict, 'passed', JSON.stringify(tested.attempts));
    const probes = [agentAfter(tested.rtoMs!)];
    // What a medium does to a point that was proven: its boot sector reads as zeros from now on.
    const layer = replica.chain(proven, 'system').at(-1)!.path;
    await runCommand('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 0 0 512', layer]);
    const unproven = await pointWithoutBootSector(site);

    const wish = { provenWorthMs: 3_600_000 };
    const proofs = await pointProofs(nodeFiles, replica);
    const order = (wish: { provenWorthMs: number }) =>
      candidatesOf(replica, { wish }, proofs).map(({ pointId }) => pointId);
    assert.deepEqual(
      order({ provenWorthMs: 0 }),
      [unproven, proven, older],
      'where proofs are worth nothing',
    );
    const report = await failovers.start(replica, { wish }, { ...CONFIRMED, probes });
    const branchId = running(report);
    const [first, second, third] = report.attempts as [AttemptReport, AttemptReport, AttemptReport];
    assert.deepEqual(
      report.attempts.map(({ point, verdict }) => [point.pointId, verdict]),
      [
        [proven, 'failed'],
        [unproven, 'failed'],
        [older, 'passed'],
      ],
    );
    assert.match(first.reason, /^proven to boot and only \d+\.\d s older than the newest$/);
    for (const failed of [first, second]) assertFailedByProbe(failed, probes);
    assert.equal(third.branchId, branchId);
    assert.equal(await inBranch(site, branchId, READ_MARK), 'older');
  },
);

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
