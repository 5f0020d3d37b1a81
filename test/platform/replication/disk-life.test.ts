/** Disks that their owner grows or adds while the machine is protected: running, switched off, and by ends that are no whole blocks. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { runCommand } from '../../../src/lib/processes.ts';
import { Replicas, verifyPoint } from '../../../src/replica/index.ts';
import { copyAndSend, sendAll, virtualSizeOf } from '../../support/lab-sites.ts';
import { type Contents, FIRST_BYTES, monitoredMachine } from '../../support/monitored-machine.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const PROVEN = () => true;

it('S0.2 S0.14 a disk that grows is copied on at its new size, and nothing is sent again', async (t) => {
  const { sites, machine, replica, pathOf, ...box } = await monitoredMachine(t);
  await box.write(1, 0, 200 * KIB);
  await box.write(2, FIRST_BYTES - 8 * KIB, 8 * KIB);
  const first = await copyAndSend(machine, sites.target);
  const before = box.contents();

  // Its end was in the middle of a block, which is another one now without anybody having written there.
  await box.grow(2 * MIB);
  const grown = await copyAndSend(machine, sites.target);
  assert.ok(grown.wireBytes < 100 * KIB, `${grown.wireBytes} bytes for a disk that only grew`);
  await box.assertPoint(grown.pointId, box.contents());
  await box.assertPoint(first.pointId, before);

  // The guest reaches every byte of it after the cut.
  await box.write(3, 2 * MIB - 64 * KIB, 64 * KIB);
  await box.grow(3 * MIB + 4 * KIB);
  await box.write(4, MIB, 12 * KIB);
  const second = await copyAndSend(machine, sites.target);
  await box.assertPoint(second.pointId, box.contents());

  // Both sites merge over the growth: here into the owner's file, there into the oldest point.
  assert.equal(machine.chain('disk').length, 2);
  assert.equal(await virtualSizeOf(pathOf('disk')), 3 * MIB + 4 * KIB);
  await replica().retire({ types: { crash: 1 } }, PROVEN);
  assert.equal(replica().points.length, 1);
  await box.assertPoint(second.pointId, box.contents());
  const reopened = await Replicas.open(sites.replicaTools, join(sites.directory, 'r'));
  await verifyPoint(sites.replicaTools, reopened.need(machine.record.machineId), second.pointId);
});

it('S0.2 S0.14 a disk that grows while its machine is off, while nothing is sent, and in the middle of the chain', async (t) => {
  const { sites, machine, replica, pathOf, ...box } = await monitoredMachine(t);
  await box.write(1, 0, 300 * KIB);
  const first = await copyAndSend(machine, sites.target);
  const points: [string, Contents][] = [[first.pointId, box.contents()]];
  for (const [index, sizeBytes] of [700 * KIB, MIB + 512, 5 * MIB].entries()) {
    await box.grow(sizeBytes);
    await box.write(index + 2, sizeBytes - 20 * KIB - (sizeBytes % (4 * KIB)), 20 * KIB);
    const { cutId } = await machine.cut('crash');
    points.push([cutId, box.contents()]);
  }
  await sendAll(machine, sites.target);
  for (const [pointId, expected] of points) await box.assertPoint(pointId, expected);

  await box.switchOff();
  await runCommand('qemu-img', ['resize', '-q', '-f', 'qcow2', machine.chain('disk').at(-1)!.path, '6M']);
  box.holds('disk', Buffer.concat([box.contents().get('disk')!, Buffer.alloc(MIB)]));
  const off = await copyAndSend(machine, sites.target);
  await box.assertPoint(off.pointId, box.contents());
  await replica().retire({ types: { crash: 2 } }, PROVEN);
  for (const [pointId, expected] of [points.at(-1)!, [off.pointId, box.contents()] as const]) {
    await box.assertPoint(pointId, expected);
  }

  // Smaller is another thing: what would have to go is not ours to drop.
  const tip = machine.chain('disk').at(-1)!.path;
  await runCommand('qemu-img', ['resize', '-q', '--shrink', '-f', 'qcow2', tip, '3M']);
  await assert.rejects(machine.cut('crash'), { code: 'PROTECTION_DISK_SHRUNK' });
  assert.equal(replica().points.length, 2);
  await runCommand('qemu-img', ['resize', '-q', '-f', 'qcow2', tip, '6M']);
  await copyAndSend(machine, sites.target);

  await machine.unprotect();
  assert.equal(await virtualSizeOf(pathOf('disk')), 6 * MIB);
});

it('S0.28 a disk that came later, or that nobody named, is told of with each copy', async (t) => {
  const { machine } = await monitoredMachine(t, [
    '-drive',
    'if=virtio,format=raw,file.driver=null-co,file.size=1M',
  ]);
  const { leftOut } = await machine.cut('crash');
  assert.equal(leftOut?.length, 1);
  const { machine: known } = await monitoredMachine(t);
  assert.equal((await known.cut('crash')).leftOut, undefined);
});
