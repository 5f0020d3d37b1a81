/** A failover that is undone: the machine is where it was, as it was left there; what was written meanwhile is kept, and only differences cross. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { FailoverReport, UndoReport } from '../../../src/failover/index.ts';
import { QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { ReplicaLayout } from '../../../src/replica/index.ts';
import type { TestApi } from '../../support/api.ts';
import { ledgerPortOf } from '../../support/lab-guest.ts';
import { assertLedger, assertSameContent } from '../../support/lab-sites.ts';
import { BOX, ended, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import {
  BY_HAND,
  heldAt,
  holds,
  servedAgain,
  sitesWithMachine,
  tipAt,
  verifiedCopy,
  write,
  writeToTip,
} from '../../support/site-of-box.ts';
import { chainInHeaders } from '../../support/sound-layers.ts';

const MIB = 1024 * 1024;
const NOW = { ...BOX, body: {} } as const;
const AT_ONCE = { ...BOX, body: { graceMs: 0 } } as const;

async function broughtUp(api: TestApi): Promise<string> {
  const body = { confirmOtherSideDown: true as const, probes: [] };
  const report = (await resultOf(api, await api.call('failover.start', { ...BOX, body }))) as FailoverReport;
  return report.branchId!;
}

async function undone(api: TestApi): Promise<UndoReport> {
  return (await resultOf(api, await api.call('failover.undo', AT_ONCE))) as UndoReport;
}

async function codesOf(api: TestApi): Promise<string[]> {
  return (await api.call('alert.list')).map(({ code }) => code);
}

/** Whoever is told by a copy that another site holds the machine. */
async function hears(api: TestApi, until: () => Promise<unknown>): Promise<void> {
  await Promise.allSettled([api.call('point.create', { ...BOX, body: { type: 'crash' } })]);
  await until();
}

describe('a failover that is undone', { timeout: 240_000 }, () => {
  it('F4 two guests that both wrote: the one goes on where it was, the other’s writes are a branch, and only differences cross', async (context) => {
    const { t, directory, home, homeApi, away, awayApi } = await pairedSites(context);
    const { lab, attach } = await someonesMachine(t, directory);
    const ledger = await ledgerPortOf(t, lab);
    const { machineId } = await homeApi.call('vm.add', { body: { attach } });
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    const first = await verifiedCopy(homeApi);

    // Somebody gives his word for what is not so, and both write.
    const begun = await awayApi.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } });
    const report = (await resultOf(awayApi, begun)) as FailoverReport;
    assert.equal(report.verdict, 'passed', JSON.stringify(report.attempts));
    const promised = (await ledger.next()).seq;
    const undoing = (await resultOf(awayApi, await awayApi.call('failover.undo', NOW))) as UndoReport;
    assert.deepEqual(
      [undoing.epoch, undoing.branches.map(({ branchId, ended: how }) => [branchId, how])],
      [2, [[report.branchId, 'shut-down']]],
    );
    assert.equal((await awayApi.call('vm.show', BOX)).replica!.right, 'given-up');

    // It hears of the claim, and has ended its guest before it has heard that nobody holds it.
    const isOff = async () =>
      (await homeApi.call('vm.show', BOX)).protected!.presence.state === 'stopped' ? true : undefined;
    await hears(homeApi, () => home.until(isOff));
    const back = await homeApi.call('failover.withdraw', NOW);
    assert.deepEqual([back.epoch, back.protected!.heldBy], [3, undefined]);

    const images = new QemuImages({ clock: systemClock });
    const { protected: left } = await homeApi.call('vm.show', BOX);
    const chainAt = (disk: 'system' | 'data') => left!.disks[disk === 'system' ? 0 : 1]!.chain;
    const last = await assertLedger(images, chainAt, Math.max(promised, ledger.last!.seq));
    const { pointId, sequence } = await verifiedCopy(homeApi);
    const points = await awayApi.call('point.list', BOX);
    assert.deepEqual(
      points.map((point) => [point.sequence, point.epoch]).at(-1),
      [sequence, 3],
      'its history goes on',
    );
    const [base, ...others] = points;
    assert.equal(base!.pointId, first.pointId);
    const crossed = others.reduce((sum, { receivedBytes }) => sum + receivedBytes!, 0);
    context.diagnostic(`${crossed} bytes crossed after it, ${base!.receivedBytes} for the first copy`);
    assert.ok(crossed < base!.receivedBytes! / 4, `${crossed} bytes crossed`);

    const { protected: now } = await homeApi.call('vm.show', BOX);
    // So that no merge changes what is compared.
    await home.close();
    const layout = new ReplicaLayout(away.dataDirectory, machineId);
    for (const [index, disk] of ['disk0', 'disk1'].entries()) {
      const there = await chainInHeaders(layout.layer(disk, pointId));
      const here = await chainInHeaders(now!.disks[index]!.chain.at(-1)!.path);
      await assertSameContent(images, here, there);
    }
    const branch = await Promise.all(
      ['disk0', 'disk1'].map((disk) =>
        chainInHeaders(join(layout.branch(report.branchId!), `${disk}.qcow2`)),
      ),
    );
    const written = await assertLedger(images, (disk) => branch[disk === 'system' ? 0 : 1]!, 0);
    assert.ok(written > 0 && last > 0, 'what was written there is whole as well');
    const kept = await awayApi.call('failover.list', BOX);
    assert.deepEqual(
      kept.map(({ branchId, running }) => [branchId, running]),
      [[report.branchId, false]],
    );
  });

  it('F4 it is given up before it is asked for, each by a person of that site, and what either wrote stays', async (context) => {
    const { home, homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    // What it writes last the other site does not get before it is brought up there.
    await writeToTip(homeApi, 5, 6 * MIB);
    await home.close();
    await assert.rejects(awayApi.call('failover.undo', AT_ONCE), { code: 'FAILOVER_NOT_BEGUN' });
    const branch = await broughtUp(awayApi);
    const params = { machine: 'box', branch };
    await resultOf(awayApi, await awayApi.call('failover.stop', { params, body: { graceMs: 0 } }));
    const { machineId } = await awayApi.call('vm.show', BOX);
    const layout = new ReplicaLayout(away.dataDirectory, machineId);
    const written = join(layout.branch(branch), 'disk0.qcow2');
    await write(written, 7, 8 * MIB, MIB);
    await resultOf(awayApi, await awayApi.call('failover.restart', { params, body: { probes: [] } }));

    // It does not know yet that another site had brought it up, asks, and is told who holds it.
    const homeAgain = await servedAgain(home, 'home', awayApi);
    await assert.rejects(homeAgain.call('failover.withdraw', NOW), { code: 'MACHINE_TAKEN' });
    assert.equal(await heldAt(homeAgain), 'fenced');
    await assert.rejects(homeAgain.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });

    const report = await undone(awayApi);
    assert.deepEqual(
      [report.kind, report.epoch, report.branches.map(({ branchId, ended: how }) => [branchId, how])],
      ['undo', 2, [[branch, 'powered-off']]],
    );
    assert.deepEqual((await undone(awayApi)).branches[0]!.ended, 'not-running', 'again nothing changes');
    await away.until(async () => ((await codesOf(awayApi))[0] === 'REPLICATION_GIVEN_UP' ? true : undefined));
    await assert.rejects(homeAgain.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });
    const refused = await ended(
      awayApi,
      await awayApi.call('failover.restart', { params, body: { probes: [] } }),
    );
    assert.equal(refused.failure!.code, 'FAILOVER_GIVEN_UP');
    await assert.rejects(awayApi.call('failover.adopt', NOW), { code: 'FAILOVER_GIVEN_UP' });

    const { reports } = await awayApi.call('report.list', {});
    const [told] = reports.filter(({ kind }) => kind === 'undo').slice(-1);
    assert.deepEqual([told!.verdict, told!.about], ['passed', 'box']);

    // That outlives the process of either site.
    const awayAgain = await servedAgain(away, 'away', homeAgain);
    assert.equal((await awayAgain.call('vm.show', BOX)).replica!.right, 'given-up');
    const back = await homeAgain.call('failover.withdraw', NOW);
    assert.deepEqual([back.epoch, back.protected!.heldBy], [3, undefined]);
    await homeAgain.call('vm.start', BOX);
    await homeAgain.call('vm.stop', { ...BOX, body: { force: true } });
    await home.until(async () => ((await codesOf(homeAgain)).length === 0 ? true : undefined));

    await writeToTip(homeAgain, 9, 12 * MIB);
    const { pointId, sequence } = await verifiedCopy(homeAgain);
    const point = await awayAgain.call('point.show', { params: { machine: 'box', point: pointId } });
    assert.deepEqual([point.epoch, sequence, point.changedBytes], [3, 2, 2 * MIB], 'a difference, no resync');
    assert.equal(point.olderBytes, undefined);
    const images = new QemuImages({ clock: systemClock });
    const { protected: now } = await homeAgain.call('vm.show', BOX);
    await assertSameContent(
      images,
      now!.disks[0]!.chain,
      await chainInHeaders(layout.layer('disk0', pointId)),
    );
    const tip = await tipAt(homeAgain);
    assert.deepEqual([await holds(tip, 5, 6 * MIB), await holds(tip, 7, 8 * MIB)], [true, false]);
    const copied = layout.layer('disk0', pointId);
    assert.deepEqual([await holds(copied, 5, 6 * MIB), await holds(copied, 7, 8 * MIB)], [true, false]);
    assert.deepEqual([await holds(written, 5, 6 * MIB), await holds(written, 7, 8 * MIB)], [false, true]);
    await away.until(async () =>
      (await codesOf(awayAgain))[0] === 'REPLICATION_SET_APART' ? true : undefined,
    );
    await assert.rejects(awayAgain.call('failover.undo', AT_ONCE), { code: 'FAILOVER_FENCED' });
    await resultOf(awayAgain, await awayAgain.call('failover.cleanup', { params }));
    await away.until(async () => ((await codesOf(awayAgain)).length === 0 ? true : undefined));
    await assert.rejects(homeAgain.call('failover.withdraw', NOW), { code: 'PROTECTION_NOT_CEDED' });
  });

  it('F4 a planned failover is undone as well, and one that was adopted is not', async (context) => {
    const { home, homeApi, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const handedOver = async () => {
      await resultOf(homeApi, await homeApi.call('failover.cede', NOW));
      await resultOf(awayApi, await awayApi.call('failover.take', { ...BOX, body: { probes: [] } }));
      await home.until(async () => ((await heldAt(homeApi)) === 'handed-over' ? true : undefined));
    };
    await handedOver();
    await undone(awayApi);
    const back = await homeApi.call('failover.withdraw', NOW);
    assert.deepEqual([back.epoch, back.protected!.heldBy], [3, undefined]);
    await writeToTip(homeApi, 7, 8 * MIB);
    const { pointId } = await verifiedCopy(homeApi);
    const point = await awayApi.call('point.show', { params: { machine: 'box', point: pointId } });
    assert.deepEqual([point.epoch, point.changedBytes], [3, MIB]);

    await handedOver();
    await awayApi.call('failover.adopt', NOW);
    await assert.rejects(awayApi.call('failover.undo', AT_ONCE), (error: Error & { code: string }) => {
      assert.equal(error.code, 'FAILOVER_ADOPTED');
      return true;
    });
    await assert.rejects(homeApi.call('failover.withdraw', NOW), { code: 'MACHINE_TAKEN' });
    assert.equal((await awayApi.call('vm.show', BOX)).protected!.presence.state, 'running');
    await awayApi.call('vm.stop', { ...BOX, body: { force: true } });
  });

  it('F4 an undoing whose site ends while the guest shuts down goes on; what was given up can be brought up again', async (context) => {
    const { homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const branch = await broughtUp(awayApi);
    // There is nothing on its disk that could shut down.
    const job = await awayApi.call('failover.undo', { ...BOX, body: { graceMs: 600_000 } });
    const isAtWork = async (api: TestApi) => {
      const { state, progress } = await api.call('job.show', { params: { job: job.jobId }, query: {} });
      return state === 'running' && progress?.step !== undefined ? true : undefined;
    };
    await away.until(() => isAtWork(awayApi));
    const again = await servedAgain(away, 'away', homeApi);
    await away.until(() => isAtWork(again));
    assert.deepEqual(
      [
        (await again.call('vm.show', BOX)).replica!.right,
        (await again.call('failover.list', BOX))[0]!.running,
      ],
      ['held', true],
    );
    await again.call('job.cancel', { params: { job: job.jobId } });
    assert.equal((await ended(again, job)).state, 'cancelled');
    assert.equal((await undone(again)).branches[0]!.ended, 'powered-off');

    // A change of mind, before the other site has asked for it.
    const second = await broughtUp(again);
    assert.equal((await again.call('vm.show', BOX)).epoch, 3);
    await resultOf(
      again,
      await again.call('failover.cleanup', { params: { machine: 'box', branch: second } }),
    );
    const params = { machine: 'box', branch };
    await resultOf(again, await again.call('failover.restart', { params, body: { probes: [] } }));
    await undone(again);
    // It knows of nothing yet, asks for too little at first, and gets what was given up last.
    assert.equal((await homeApi.call('failover.withdraw', NOW)).epoch, 4);
  });
});
