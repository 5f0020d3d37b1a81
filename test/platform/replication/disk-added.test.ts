/** Disks that a machine gets while it is protected: plugged in while it runs, and put in while it is off. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { Replicas, verifyPoint } from '../../../src/replica/index.ts';
import { copyAndSend, sendAll } from '../../support/lab-sites.ts';
import { monitoredMachine } from '../../support/monitored-machine.ts';
import { reopenMachine } from '../../support/two-sites.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const PROVEN = () => true;

it('S0.28 a disk plugged into a running machine is in every point from the next one on, whole, beside the differences of the others', async (t) => {
  const { sites, machine, replica, ...box } = await monitoredMachine(t);
  await box.write(1, 0, 200 * KIB);
  const first = await copyAndSend(machine, sites.target);
  const without = box.contents();

  await box.create('late', 2 * MIB);
  await box.plugIn('late', box.pathOf('late'), 2 * MIB);
  await box.write(7, MIB, 256 * KIB, 'late');
  assert.equal((await machine.cut('crash')).leftOut?.length, 1);
  await machine.addDisk(await box.plugged('late'));
  const told = await machine.cut('crash');
  assert.equal(told.leftOut, undefined);
  await box.write(2, 300 * KIB, 4 * KIB);
  const wireBytes = await sendAll(machine, sites.target);
  // What the new disk holds, and nothing of the others again.
  assert.ok(wireBytes > 256 * KIB && wireBytes < 320 * KIB, `${wireBytes} bytes`);
  const between = new Map(box.contents());
  between.get('disk')!.fill(0, 300 * KIB, 304 * KIB);
  await box.assertPoint(told.cutId, between);
  await box.assertPoint(first.pointId, without);

  // From here on it is a disk like the others: incremental, grown, merged, at both sites.
  await box.write(8, 0, 8 * KIB, 'late');
  await box.grow(3 * MIB, 'late');
  const next = await copyAndSend(machine, sites.target);
  assert.ok(next.wireBytes < 64 * KIB, `${next.wireBytes} bytes`);
  await box.assertPoint(next.pointId, box.contents());
  assert.equal(machine.chain('late').length, 2);
  assert.deepEqual(replica().chain(first.pointId, 'late'), []);

  await machine.release();
  const again = await reopenMachine(sites);
  assert.equal((await again.attach()).state, 'running');
  await box.write(9, MIB, 4 * KIB, 'late');
  const last = await copyAndSend(again, sites.target);
  assert.ok(last.wireBytes < 64 * KIB, `${last.wireBytes} bytes`);
  await replica().retire({ types: { crash: 2 } }, PROVEN);
  await box.assertPoint(last.pointId, box.contents());
  await replica().retire({ types: { crash: 1 } }, PROVEN);
  assert.equal(replica().points.length, 1);
  await box.assertPoint(last.pointId, box.contents());
  const reopened = await Replicas.open(sites.replicaTools, join(sites.directory, 'r'));
  await verifyPoint(sites.replicaTools, reopened.need(machine.record.machineId), last.pointId);

  await again.unprotect();
  const { chain } = (await again.running!.disks()).find(({ deviceName }) => deviceName === 'dev-late')!;
  assert.deepEqual(
    chain.map(({ path }) => path),
    [box.pathOf('late')],
  );
  await again.release();
});

it('S0.28 S0.14 a disk put in while the machine is off and the target does not answer, and points merged over its beginning', async (t) => {
  const { sites, machine, replica, ...box } = await monitoredMachine(t);
  await box.write(1, 0, 100 * KIB);
  const first = await copyAndSend(machine, sites.target);
  const points = [[first.pointId, box.contents()] as const];
  await box.switchOff();
  const { path } = await box.create('late', MIB);
  const late = { diskId: 'late', bus: 'virtio-blk' as const, sizeBytes: MIB };
  const deviceName = '/machine/peripheral/dev-late/virtio-backend';
  const disk = { diskId: 'late', deviceName, chain: [{ path, format: 'qcow2' as const }], sizeBytes: MIB };
  await machine.addDisk({ disk, configuration: late });
  await assert.rejects(machine.addDisk({ disk, configuration: late }), { code: 'PROTECTION_DISK_TAKEN' });
  box.holds('late', Buffer.alloc(MIB));
  // Nothing was written, and yet there is something to copy.
  assert.equal(await machine.hasUncutChanges(), true);
  await machine.start();
  await box.listen();
  // More copies than may wait: the first one with the disk takes in younger ones.
  for (let round = 0; round < 12; round++) {
    await box.write(round + 2, round * 8 * KIB, 8 * KIB);
    await box.write(round + 20, round * 64 * KIB, 4 * KIB, 'late');
    const { cutId } = await machine.cut('crash');
    points.push([cutId, box.contents()]);
  }
  assert.ok(machine.cuts.length < 12, `${machine.cuts.length} cuts wait`);
  await sendAll(machine, sites.target);
  const there = points.filter(([pointId]) =>
    replica().points.some(({ statement }) => statement.pointId === pointId),
  );
  assert.ok(there.length > 4);
  for (const [pointId, expected] of there) await box.assertPoint(pointId, expected);

  // Merged away: the first one with the disk and its neighbours, in the middle; then all but the newest.
  const proven = (pointId: string) => pointId === first.pointId;
  for (const crash of [4, 2]) {
    await replica().retire({ types: { crash } }, proven);
    for (const [pointId, expected] of points) {
      const isThere = replica().points.some(({ statement }) => statement.pointId === pointId);
      if (isThere) await box.assertPoint(pointId, expected);
    }
  }
  assert.equal(replica().points[0]?.statement.pointId, first.pointId);
  await replica().retire({ types: { crash: 1 } }, PROVEN);
  const [last] = points.slice(-1);
  await box.assertPoint(...last!);
});
