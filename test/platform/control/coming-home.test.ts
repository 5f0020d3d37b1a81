/** What a failover has brought up becomes the machine; its replication turns, and it comes home again: only what differs crosses the wire. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { FailoverReport } from '../../../src/failover/index.ts';
import { processesOfRun, QemuImages } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { decideRemoval } from '../../../src/lib/removal.ts';
import { ReplicaLayout } from '../../../src/replica/index.ts';
import type { TestApi } from '../../support/api.ts';
import { assertOnlyDifference, type Divergence, writtenTo } from '../../support/changed-blocks.ts';
import { assertLedger, inGuest } from '../../support/lab-sites.ts';
import { BOX, ended, resultOf } from '../../support/paired-sites.ts';
import type { TestSite } from '../../support/served-sites.ts';
import {
  BY_HAND,
  heldAt,
  holds,
  servedAgain,
  sitesWithGuest,
  sitesWithMachine,
  tipAt,
  verifiedCopy,
  writeToTip,
} from '../../support/site-of-box.ts';
import { chainInHeaders } from '../../support/sound-layers.ts';

const MIB = 1024 * 1024;
const NOW = { ...BOX, body: {} } as const;
/** What crosses is counted: as it was written, so that no bound is kept by what compresses well. */
const UNCOMPRESSED = { ...BY_HAND, compression: false };
/** What the guest writes at the other site beside its ledger. */
const WRITTEN_AWAY = 8 * MIB;

async function isHandedOver(site: TestSite, api: TestApi): Promise<void> {
  await site.until(async () => ((await heldAt(api)) === 'handed-over' ? true : undefined));
}

/** The machine goes from one site to the other, and is at home there. Returns the branch that it was. */
async function handedOver(from: TestApi, to: TestApi): Promise<string> {
  await resultOf(from, await from.call('failover.cede', NOW));
  const [ceded] = (await from.call('report.list', { query: { limit: '1' } })).reports;
  assert.deepEqual([ceded!.kind, ceded!.verdict, ceded!.rpoMs], ['cede', 'passed', 0]);
  const report = (await resultOf(
    to,
    await to.call('failover.take', { ...BOX, body: { probes: [] } }),
  )) as FailoverReport;
  assert.equal(report.kind, 'planned');
  await to.call('failover.adopt', NOW);
  const { reports } = await to.call('report.list', { query: { limit: '2' } });
  assert.deepEqual(
    reports.map(({ kind, verdict, about }) => `${kind} ${about} ${verdict}`),
    ['adopt box passed', 'take box unproven'],
  );
  return report.branchId!;
}

async function stopped(api: TestApi): Promise<void> {
  await api.call('vm.stop', { ...BOX, body: { force: true } });
}

/** The first copy to the other site, and what of it crossed the wire. */
async function replicatedTo(from: TestApi, to: TestApi) {
  await from.call('vm.protect', { ...BOX, body: BY_HAND });
  const { pointId, sequence } = await verifiedCopy(from);
  assert.equal(sequence, 1, 'a replica that begins anew');
  const point = await to.call('point.show', { params: { machine: 'box', point: pointId } });
  return point;
}

/** The older generations of a site: what they are called, what lies upon them, and how many branches there are in each. */
async function generationsAt(api: TestApi) {
  const former = await api.call('generation.list', BOX);
  for (const { sizeBytes, unclear } of former) assert.deepEqual([sizeBytes > 0, unclear], [true, undefined]);
  return former.map(({ generation, needs, branches }) => [
    generation,
    [...new Set(needs.map(({ by }) => by))],
    branches.length,
  ]);
}

function removed(api: TestApi, generation: string): Promise<unknown> {
  return api.call('generation.remove', { params: { machine: 'box', generation } });
}

describe('a machine that comes home', { timeout: 300_000 }, () => {
  it('F4 a guest that writes all the time goes over and comes home, and no record of it is lost', async (context) => {
    const { ledger, home, homeApi, away, awayApi } = await sitesWithGuest(context);
    const promised = (await ledger.next()).seq;
    await resultOf(homeApi, await homeApi.call('failover.cede', NOW));
    const over = (await resultOf(awayApi, await awayApi.call('failover.take', NOW))) as FailoverReport;
    assert.equal(over.verdict, 'passed', JSON.stringify(over.attempts));
    await awayApi.call('failover.adopt', NOW);
    await isHandedOver(home, homeApi);

    const { agentPath } = (await awayApi.call('vm.show', BOX)).protected!;
    await inGuest(agentPath!, `dd if=/dev/urandom of=/data/away bs=1M count=${WRITTEN_AWAY / MIB} && sync`);
    await awayApi.call('vm.protect', { ...BOX, body: UNCOMPRESSED });
    const { pointId } = await verifiedCopy(awayApi);
    const first = await homeApi.call('point.show', { params: { machine: 'box', point: pointId } });
    const { olderBytes = 0, receivedBytes = 0 } = first;
    context.diagnostic(`${receivedBytes} bytes crossed, ${olderBytes} were there`);
    assert.ok(receivedBytes < olderBytes / 2, `${receivedBytes} bytes crossed, ${olderBytes} were there`);
    assert.ok(receivedBytes > WRITTEN_AWAY, 'what was written there is in it, uncompressed');
    const { protected: here } = await awayApi.call('vm.show', BOX);
    const { protected: there } = await homeApi.call('vm.show', BOX);
    const disks: Divergence[] = [];
    for (const [index, { sizeBytes, chain }] of here!.disks.entries()) {
      // What it runs on there begins with the branch of the failover; its tip is younger than the copy.
      const since = chain.findIndex(({ path }) => path.includes(over.branchId!));
      assert.ok(since > 0 && since < chain.length - 1, JSON.stringify(chain));
      disks.push({
        sizeBytes,
        there: await writtenTo(there!.disks[index]!.chain.at(-1)!.path),
        here: await writtenTo(chain.at(-2)!.path, chain.length - 1 - since),
      });
    }
    context.diagnostic(assertOnlyDifference(disks, receivedBytes));

    await resultOf(awayApi, await awayApi.call('failover.cede', NOW));
    const { protected: left, machineId } = await awayApi.call('vm.show', BOX);
    const images = new QemuImages({ clock: systemClock });
    const chainAt = (disk: 'system' | 'data') => left!.disks[disk === 'system' ? 0 : 1]!.chain;
    const last = await assertLedger(images, chainAt, promised);
    assert.ok(last > promised, 'it has written there');
    const back = (await resultOf(homeApi, await homeApi.call('failover.take', NOW))) as FailoverReport;
    assert.equal(back.verdict, 'passed', JSON.stringify(back.attempts));
    const layout = new ReplicaLayout(home.dataDirectory, machineId);
    const chains = {
      system: await chainInHeaders(layout.layer('disk0', back.point.pointId)),
      data: await chainInHeaders(layout.layer('disk1', back.point.pointId)),
    };
    assert.equal(await assertLedger(images, (disk) => chains[disk], last), last);
    await homeApi.call('failover.adopt', NOW);
    await isHandedOver(away, awayApi);
    assert.equal((await homeApi.call('vm.show', BOX)).protected!.presence.state, 'running');
  });

  it('F4 goes over, is at home there without a pause, comes back and goes again: each time only the difference crosses', async (context) => {
    const { home, homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    await resultOf(homeApi, await homeApi.call('failover.cede', NOW));
    const report = (await resultOf(
      awayApi,
      await awayApi.call('failover.take', { ...BOX, body: { probes: [] } }),
    )) as FailoverReport;
    const branch = report.branchId!;
    const run = join(away.dataDirectory, 'run', branch);
    const before = await processesOfRun(run);
    const adopted = await awayApi.call('failover.adopt', NOW);
    assert.deepEqual(
      [adopted.role, adopted.epoch, adopted.protected!.kind, adopted.replica!.right],
      ['protected', 2, 'managed', 'adopted'],
    );
    assert.equal(adopted.protected!.presence.state, 'running');
    assert.deepEqual(await processesOfRun(run), before, 'it runs on');

    // What the branch was is the machine's business now.
    const params = { machine: 'box', branch };
    const refused = async (what: Promise<Parameters<typeof ended>[1]>) =>
      assert.equal((await ended(awayApi, await what)).failure?.code, 'FAILOVER_ADOPTED');
    await refused(awayApi.call('failover.stop', { params, body: {} }));
    await refused(awayApi.call('failover.cleanup', { params }));
    await refused(awayApi.call('failover.restart', { params, body: {} }));
    await refused(awayApi.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } }));
    await assert.rejects(awayApi.call('failover.adopt', NOW), { code: 'FAILOVER_ADOPTED' });
    await assert.rejects(awayApi.call('replica.remove', BOX), { code: 'REPLICA_NEEDED' });
    const [shown] = await awayApi.call('failover.list', BOX);
    assert.equal(shown!.adopted, true);

    // That outlives the site process, while the machine runs and while it does not.
    const awayAgain = await servedAgain(away, 'away', homeApi);
    assert.deepEqual(await processesOfRun(run), before);
    await stopped(awayAgain);
    assert.deepEqual(await processesOfRun(run), []);
    await isHandedOver(home, homeApi);

    await writeToTip(awayAgain, 7, 8 * MIB);
    const back = await replicatedTo(awayAgain, homeApi);
    assert.equal(back.epoch, 2);
    assert.equal(back.olderBytes, 4 * MIB, 'what both have does not cross');
    assert.ok(back.receivedBytes! < 1.1 * MIB, `${back.receivedBytes} bytes crossed`);

    await writeToTip(awayAgain, 9, 12 * MIB);
    assert.deepEqual(await awayAgain.call('generation.list', BOX), [], 'all of it is in use');
    await handedOver(awayAgain, homeApi);
    await isHandedOver(away, awayAgain);
    await stopped(homeApi);
    const tip = await tipAt(homeApi);
    assert.deepEqual([await holds(tip, 1, 0), await holds(tip, 7, 8 * MIB)], [true, true]);
    assert.ok(await holds(tip, 9, 12 * MIB));

    // And once more the other way.
    await writeToTip(homeApi, 11, 16 * MIB);
    const again = await replicatedTo(homeApi, awayAgain);
    assert.equal(again.epoch, 3);
    assert.equal(again.olderBytes, 6 * MIB);
    // Its replica begins anew, and what it ran on lies upon the one before.
    assert.deepEqual(await generationsAt(awayAgain), [['replica.1', ['machine'], 1]]);
    const needed = { code: 'GENERATION_NEEDED' };
    await assert.rejects(removed(awayAgain, 'replica.1'), needed);
    assert.ok(again.receivedBytes! < 1.1 * MIB, `${again.receivedBytes} bytes crossed`);
    await handedOver(homeApi, awayAgain);
    await stopped(awayAgain);
    const there = await tipAt(awayAgain);
    assert.deepEqual([await holds(there, 9, 12 * MIB), await holds(there, 11, 16 * MIB)], [true, true]);
    await isHandedOver(home, homeApi);
    assert.deepEqual(await homeApi.call('alert.list'), []);
    assert.deepEqual(await awayAgain.call('alert.list'), []);

    // What they had before the turns goes when nothing lies upon it, and only then.
    assert.deepEqual(await generationsAt(homeApi), [['machine.1', [], 0]]);
    assert.deepEqual(await generationsAt(awayAgain), [
      ['replica.1', ['generation'], 1],
      ['machine.2', [], 0],
    ]);
    await assert.rejects(removed(awayAgain, '1'), needed);
    await assert.rejects(removed(awayAgain, '4'), { code: 'GENERATION_UNKNOWN' }, 'what it has now');
    await removed(awayAgain, '2');
    await removed(awayAgain, 'replica.1');
    assert.deepEqual(await generationsAt(awayAgain), []);
    const { machineId } = await homeApi.call('vm.show', BOX);
    const { entries } = await awayAgain.call('audit.list');
    assert.ok(entries.some(({ act, subject }) => act === 'generation.remove' && subject === machineId));
    // One site ends when it has been decided, and nothing has gone.
    const former = join(home.dataDirectory, 'protected', machineId);
    await decideRemoval(nodeFiles, former);

    // Both sites know that also when they start again.
    const homeAgain = await servedAgain(home, 'home', awayAgain);
    const last = await servedAgain(away, 'away', homeAgain);
    assert.equal(await nodeFiles.list(former), undefined, 'the removal is ended');
    assert.deepEqual(await generationsAt(homeAgain), []);
    assert.equal(await heldAt(homeAgain), 'handed-over');
    await assert.rejects(homeAgain.call('vm.start', BOX), { code: 'PROTECTION_CEDED' });
    const { epoch, protected: there2 } = await last.call('vm.show', BOX);
    assert.deepEqual([epoch, there2!.heldBy], [4, undefined]);
    await last.call('vm.start', BOX);
    await stopped(last);
  });

  it('F4 what both sides have written since they parted crosses once, and what the losing side has written is kept', async (context) => {
    const { home, homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    // What it writes last the other site never gets.
    await writeToTip(homeApi, 5, 6 * MIB);
    await home.close();
    const report = (await resultOf(
      awayApi,
      await awayApi.call('failover.start', {
        ...BOX,
        body: { confirmOtherSideDown: true, probes: [] },
      }),
    )) as FailoverReport;
    await awayApi.call('failover.adopt', { ...BOX, body: { branch: report.branchId! } });
    await stopped(awayApi);
    await writeToTip(awayApi, 7, 8 * MIB);
    await awayApi.call('vm.protect', { ...BOX, body: UNCOMPRESSED });

    // It comes back, hears of that, ends its machine, and gets the copy without anybody's doing.
    const back = await servedAgain(home, 'home', awayApi);
    const { pointId } = await verifiedCopy(awayApi);
    const point = await back.call('point.show', { params: { machine: 'box', point: pointId } });
    assert.equal(point.olderBytes, 4 * MIB);
    const [disk] = (await awayApi.call('vm.show', BOX)).protected!.disks;
    const [there, here] = [await writtenTo(await tipAt(back)), await writtenTo(disk!.chain.at(-2)!.path)];
    assert.deepEqual([there, here], [[{ offset: 6 * MIB, length: MIB }], [{ offset: 8 * MIB, length: MIB }]]);
    context.diagnostic(
      assertOnlyDifference([{ sizeBytes: disk!.sizeBytes, there, here }], point.receivedBytes!),
    );
    // One MiB that this side wrote; that the other side's is not there is told by no more than its zeros.
    assert.ok(point.receivedBytes! < 1.1 * MIB, `${point.receivedBytes} bytes crossed`);
    const shown = await back.call('vm.show', BOX);
    assert.deepEqual(
      [shown.protected!.heldBy?.how, shown.protected!.presence.state],
      ['handed-over', 'stopped'],
    );
    const { entries } = await back.call('audit.list');
    assert.ok(entries.some(({ act }) => act === 'vm.set-apart'));
    const kept = await tipAt(back);
    assert.deepEqual([await holds(kept, 5, 6 * MIB), await holds(kept, 7, 8 * MIB)], [true, false]);

    // At home again it is what it was over there, and what was set apart stays beside it.
    await handedOver(awayApi, back);
    await isHandedOver(away, awayApi);
    await stopped(back);
    const tip = await tipAt(back);
    assert.notEqual(tip, kept);
    assert.deepEqual([await holds(tip, 7, 8 * MIB), await holds(tip, 5, 6 * MIB)], [true, false]);
    assert.ok(await holds(kept, 5, 6 * MIB));
  });

  it('F4 a copy of a machine that is at home is taken from nobody but the site that holds it', async (context) => {
    const { home, homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const branch = await handedOver(homeApi, awayApi);
    await isHandedOver(home, homeApi);
    // It is copied, so that what it writes lies in layers above the branch; nobody may send it home unasked.
    await stopped(awayApi);
    await awayApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(awayApi);
    await writeToTip(awayApi, 5, 6 * MIB);
    await awayApi.call('point.create', { ...BOX, body: { type: 'crash' } });
    await writeToTip(awayApi, 6, 7 * MIB);
    const outdated = { code: 'MACHINE_OUTDATED' };
    await assert.rejects(
      homeApi.call('failover.withdraw', { ...BOX, body: { confirmOtherSideDown: true } }),
      outdated,
      'the points that came back are newer than the disks here',
    );
    await homeApi.call('replica.remove', BOX);
    // A person of the first site takes it back all the same, and says that the other one is down.
    await homeApi.call('failover.withdraw', { ...BOX, body: { confirmOtherSideDown: true } });
    await away.until(async () => ((await heldAt(awayApi)) === 'fenced' ? true : undefined));
    await assert.rejects(awayApi.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });
    await writeToTip(homeApi, 7, 8 * MIB);
    const { pointId, sequence } = await verifiedCopy(homeApi);
    assert.equal(sequence, 2, 'its history goes on, as a difference');
    const point = await awayApi.call('point.show', { params: { machine: 'box', point: pointId } });
    assert.deepEqual([point.epoch, point.changedBytes], [3, MIB]);
    assert.deepEqual(
      (await awayApi.call('alert.list')).map(({ code }) => code),
      ['REPLICATION_SET_APART'],
      'what was written there is kept, and that is told',
    );
    const { role, machineId } = await awayApi.call('vm.show', BOX);
    assert.equal(role, 'replica', 'it is none of the machines there any more');
    const [kept] = await awayApi.call('failover.list', BOX);
    assert.deepEqual([kept!.branchId, kept!.adopted], [branch, false]);
    const disk = new ReplicaLayout(away.dataDirectory, machineId).branch(branch);
    const written = join(disk, 'disk0.qcow2');
    assert.deepEqual([await holds(written, 5, 6 * MIB), await holds(written, 6, 7 * MIB)], [true, true]);

    const awayAgain = await servedAgain(away, 'away', homeApi);
    assert.equal((await awayAgain.call('failover.list', BOX))[0]!.adopted, false);
    await writeToTip(homeApi, 9, 9 * MIB);
    assert.equal((await verifiedCopy(homeApi)).sequence, 3);
    // And that may be discarded: it is nobody's base.
    const params = { machine: 'box', branch };
    await resultOf(awayAgain, await awayAgain.call('failover.cleanup', { params }));
    await away.until(async () => ((await awayAgain.call('alert.list')).length === 0 ? true : undefined));
  });

  it('F4 of two claims with one epoch the sites decide, and the lower one gives way as soon as they talk', async (context) => {
    const { home, homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const branch = await handedOver(homeApi, awayApi);
    await isHandedOver(home, homeApi);
    await stopped(awayApi);
    // Each site is told that the other one is down; both make a claim in epoch 3.
    await away.close();
    await homeApi.call('failover.withdraw', { ...BOX, body: { confirmOtherSideDown: true } });
    const { machineId } = await homeApi.call('vm.show', BOX);
    await rm(join(away.dataDirectory, 'protected', `${machineId}.2`), { recursive: true });
    await home.close();
    const awayAgain = await away.serve();
    const params = { machine: 'box', branch };
    await resultOf(awayAgain, await awayAgain.call('failover.cleanup', { params }));
    await resultOf(
      awayAgain,
      await awayAgain.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true, probes: [] } }),
    );
    assert.equal((await awayAgain.call('vm.show', BOX)).epoch, 3);
    const homeAgain = await home.serve();
    const { port } = away.served.site.peerAddress;
    await homeAgain.call('peer.address', { params: { peer: 'away' }, body: { host: '127.0.0.1', port } });
    // The id of the site that was made first is the lower one.
    await homeAgain.call('point.create', { ...BOX, body: { type: 'crash' } });
    await home.until(async () => ((await heldAt(homeAgain)) === 'fenced' ? true : undefined));
    assert.equal((await awayAgain.call('vm.show', BOX)).replica!.right, 'held');
    await assert.rejects(homeAgain.call('vm.start', BOX), { code: 'PROTECTION_FENCED' });
  });

  it('F4 whether an adoption that was cut short has happened is decided by the record of the machine', async (context) => {
    const { homeApi, away, awayApi } = await sitesWithMachine(context);
    await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
    await verifiedCopy(homeApi);
    const branch = await handedOver(homeApi, awayApi);
    const { machineId } = await awayApi.call('vm.show', BOX);
    await away.close();
    // As if the process had ended just before it stored the record.
    await rm(join(away.dataDirectory, 'protected', `${machineId}.2`, 'machine.json'));
    const again = await away.serve();
    const [shown] = await again.call('failover.list', BOX);
    assert.deepEqual([shown!.branchId, shown!.adopted, shown!.running], [branch, false, true]);
    assert.equal((await again.call('vm.show', BOX)).role, 'replica');
    assert.equal((await again.call('failover.adopt', NOW)).role, 'protected');

    // One that is not wanted is a branch again, which knows who holds it.
    await assert.rejects(again.call('vm.remove', BOX), { code: 'MACHINE_STILL_RUNS' });
    await stopped(again);
    await again.call('vm.remove', BOX);
    const [left] = await again.call('failover.list', BOX);
    assert.deepEqual([left!.branchId, left!.adopted, left!.running], [branch, false, false]);
    const params = { machine: 'box', branch };
    await resultOf(again, await again.call('failover.restart', { params, body: { probes: [] } }));
  });
});
