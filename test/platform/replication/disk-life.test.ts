/** Disks that their owner grows or adds while the machine is protected: running, switched off, and by ends that are no whole blocks. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import type { MachineConfiguration } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { Replicas, verifyPoint } from '../../../src/replica/index.ts';
import { bytesOf } from '../../support/image-bytes.ts';
import { BY_HAND, copyAndSend, sendAll, virtualSizeOf } from '../../support/lab-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';
import { twoSites } from '../../support/two-sites.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
/** Eight blocks of 64 KiB and a quarter of one. */
const FIRST_BYTES = 540_672;
const PROVEN = () => true;

/** A machine without a guest: what a guest would write is written by the monitor. */
async function growing(t: CleanUp, moreArguments: readonly string[] = []) {
  const sites = await twoSites(t);
  const [disk, steady] = ['disk', 'steady'].map((name) => join(sites.directory, `${name}.qcow2`));
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', disk!, String(FIRST_BYTES)]);
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', steady!, String(MIB)]);
  const monitorPath = join(sites.directory, 'monitor');
  const machine = await sites.addMachine(
    [
      { diskId: 'disk', path: disk!, sizeBytes: FIRST_BYTES },
      { diskId: 'steady', path: steady!, sizeBytes: MIB },
    ],
    ['-qmp', `unix:${monitorPath},server=on,wait=off`, ...moreArguments],
  );
  await machine.start();
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  const monitor = await QmpClient.connect({ path: monitorPath, clock: systemClock });
  t.after(() => monitor.close());
  const device = '/machine/peripheral/dev-disk/virtio-backend';
  const model = { bytes: Buffer.alloc(FIRST_BYTES) };
  const replica = () => sites.replicas.need(machine.record.machineId);
  return {
    ...{ sites, machine, model, replica, originPath: disk! },
    write: async (pattern: number, offset: number, length: number) => {
      const line = `qemu-io -d ${device} "write -P ${pattern} ${offset} ${length}"`;
      const said = await monitor.execute('human-monitor-command', { 'command-line': line });
      assert.equal(said, '');
      model.bytes.fill(pattern, offset, offset + length);
    },
    grow: async (sizeBytes: number) => {
      const running = await monitor.execute('query-block');
      const { inserted } = (running as { qdev: string; inserted: { 'node-name': string } }[]).find(
        ({ qdev }) => qdev === device,
      )!;
      await monitor.execute('block_resize', { 'node-name': inserted['node-name'], size: sizeBytes });
      model.bytes = Buffer.concat([model.bytes, Buffer.alloc(sizeBytes - model.bytes.length)]);
    },
    switchOff: async () => {
      await monitor.execute('quit');
      await monitor.closed;
      while (machine.presence.state !== 'stopped') {
        // Its own connection ends in the same moment; it hears of that in a turn of its own.
        await new Promise(setImmediate);
        await machine.look();
      }
    },
    /** Proves the point, and compares what it reads as with what the guest has written. */
    assertPoint: async (pointId: string, expected: Buffer) => {
      await verifyPoint(sites.replicaTools, replica(), pointId);
      const found = await bytesOf(sites.protectedTools.images, replica().chain(pointId, 'disk'));
      assert.ok(found.equals(expected), `point ${pointId} does not read as the guest wrote it`);
      const { statement } = replica().point(pointId);
      assert.deepEqual(
        statement.disks.map(({ sizeBytes }) => sizeBytes),
        [expected.length, MIB],
      );
      const { disks } = statement.configuration as MachineConfiguration;
      assert.equal(disks[0]?.sizeBytes, expected.length);
    },
  };
}

it('S0.2 S0.14 a disk that grows is copied on at its new size, and nothing is sent again', async (t) => {
  const { sites, machine, model, replica, originPath, ...box } = await growing(t);
  await box.write(1, 0, 200 * KIB);
  await box.write(2, FIRST_BYTES - 8 * KIB, 8 * KIB);
  const first = await copyAndSend(machine, sites.target);
  const before = Buffer.from(model.bytes);

  // Its end was in the middle of a block, which is another one now without anybody having written there.
  await box.grow(2 * MIB);
  const grown = await copyAndSend(machine, sites.target);
  assert.ok(grown.wireBytes < 100 * KIB, `${grown.wireBytes} bytes for a disk that only grew`);
  await box.assertPoint(grown.pointId, model.bytes);
  await box.assertPoint(first.pointId, before);

  // The guest reaches every byte of it after the cut.
  await box.write(3, 2 * MIB - 64 * KIB, 64 * KIB);
  await box.grow(3 * MIB + 4 * KIB);
  await box.write(4, MIB, 12 * KIB);
  const second = await copyAndSend(machine, sites.target);
  await box.assertPoint(second.pointId, model.bytes);

  // Both sites merge over the growth: here into the owner's file, there into the oldest point.
  assert.equal(machine.chain('disk').length, 2);
  assert.equal(await virtualSizeOf(originPath), 3 * MIB + 4 * KIB);
  await replica().retire({ types: { crash: 1 } }, PROVEN);
  assert.equal(replica().points.length, 1);
  await box.assertPoint(second.pointId, model.bytes);
  const reopened = await Replicas.open(sites.replicaTools, join(sites.directory, 'r'));
  await verifyPoint(sites.replicaTools, reopened.need(machine.record.machineId), second.pointId);
});

it('S0.2 S0.14 a disk that grows while its machine is off, while nothing is sent, and in the middle of the chain', async (t) => {
  const { sites, machine, model, replica, originPath, ...box } = await growing(t);
  await box.write(1, 0, 300 * KIB);
  const first = await copyAndSend(machine, sites.target);
  const points: [string, Buffer][] = [[first.pointId, Buffer.from(model.bytes)]];
  for (const [index, sizeBytes] of [700 * KIB, MIB + 512, 5 * MIB].entries()) {
    await box.grow(sizeBytes);
    await box.write(index + 2, sizeBytes - 20 * KIB - (sizeBytes % (4 * KIB)), 20 * KIB);
    const { cutId } = await machine.cut('crash');
    points.push([cutId, Buffer.from(model.bytes)]);
  }
  await sendAll(machine, sites.target);
  for (const [pointId, expected] of points) await box.assertPoint(pointId, expected);

  await box.switchOff();
  await runCommand('qemu-img', ['resize', '-q', '-f', 'qcow2', machine.chain('disk').at(-1)!.path, '6M']);
  model.bytes = Buffer.concat([model.bytes, Buffer.alloc(MIB)]);
  const off = await copyAndSend(machine, sites.target);
  await box.assertPoint(off.pointId, model.bytes);
  await replica().retire({ types: { crash: 2 } }, PROVEN);
  for (const [pointId, expected] of [points.at(-1)!, [off.pointId, model.bytes] as const]) {
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
  assert.equal(await virtualSizeOf(originPath), 6 * MIB);
});

it('S0.28 a disk that came later, or that nobody named, is told of with each copy', async (t) => {
  const { machine } = await growing(t, ['-drive', 'if=virtio,format=raw,file.driver=null-co,file.size=1M']);
  const { leftOut } = await machine.cut('crash');
  assert.equal(leftOut?.length, 1);
  const { machine: known } = await growing(t);
  assert.equal((await known.cut('crash')).leftOut, undefined);
});
