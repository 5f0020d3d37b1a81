import assert from 'node:assert/strict';
import { it } from 'node:test';
import { verifyPoint } from '../../../src/replica/index.ts';
import { assertLedger, copyAndSend, labSites, sendAll } from '../../support/lab-sites.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

it('S0.11 S0.14 while nobody acknowledges, the chain stays short, points are missed on record, and nothing is lost', {
  timeout: sizedLimitMs({ normal: 300_000, full: 3_600_000 }),
}, async (t) => {
  const { machine, sites, ledger, replica } = await labSites(t);
  const port = await ledger();
  await port.reached(20, 60_000);
  const first = await copyAndSend(machine, sites.target);
  const cuts = sized({ what: 'S0.11: cuts while the link is down', normal: 60, full: 2000 });
  const made: string[] = [];
  for (let i = 0; i < cuts; i++) {
    made.push((await machine.cut('crash')).cutId);
    if (i % 10 === 0) await port.next();
    for (const disk of await machine.running!.disks())
      assert.ok(disk.chain.length <= 10, `${disk.chain.length} files after ${i + 1} cuts`);
  }
  for (const { diskId } of machine.record.disks) {
    const layers = (await sites.protectedTools.files.list(machine.layout.disk(diskId)))!;
    assert.ok(layers.length <= 9, `${layers.length} layers on disk`);
  }
  const promised = port.last!.seq;
  made.push((await machine.cut('crash')).cutId);
  const wireBytes = await sendAll(machine, sites.target);
  t.diagnostic(`${wireBytes} bytes for ${made.length} cuts`);
  assert.ok(wireBytes < 48 * 1024 * 1024, `${wireBytes} bytes`);

  const sent = replica().points.map(({ statement }) => statement);
  assert.equal(sent[0]!.pointId, first.pointId);
  // Each cut is a point or is named as missed by the one that carries its changes, in order.
  const told = sent
    .slice(1)
    .flatMap(({ pointId, missed }) => [...missed.map((point) => point.pointId), pointId]);
  assert.deepEqual(told, made);
  for (const { pointId } of sent) await verifyPoint(sites.replicaTools, replica(), pointId);
  const newest = sent.at(-1)!.pointId;
  await assertLedger(sites.protectedTools.images, (disk) => replica().chain(newest, disk), promised);
  for (const disk of await machine.running!.disks()) assert.ok(disk.chain.length <= 3);
  assert.equal(await machine.running!.state(), 'running');
});
