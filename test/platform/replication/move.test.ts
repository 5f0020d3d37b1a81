/** Machines that are found elsewhere: at another socket, under another name, on files that their owner has put somewhere else. */
import assert from 'node:assert/strict';
import { copyFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { exitOf, runCommand } from '../../../src/lib/processes.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { bytesOf } from '../../support/image-bytes.ts';
import { BY_HAND, copyAndSend, sendAll } from '../../support/lab-sites.ts';
import { monitoredMachine } from '../../support/monitored-machine.ts';
import { EMPTY_MACHINE, socketListens, startedProcess } from '../../support/started.ts';
import { reopenMachine, twoSites } from '../../support/two-sites.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const DISKS = ['a', 'b'];
const REFUSED = { code: 'PROTECTION_MOVE_REFUSED' };

/** A QEMU that somebody starts by hand, from one file for each disk, as headers lead on from there. */
async function startedByHand(
  t: TestContext,
  directory: string,
  o: { readonly name: string; readonly ids: string; readonly files: readonly string[] },
) {
  await mkdir(directory, { recursive: true });
  const [qmpPath, monitorPath] = [join(directory, 'qmp'), join(directory, 'monitor')];
  const drives = o.files.flatMap((path, index) => [
    ...['-drive', `file=${path},format=qcow2,if=none,id=drive-${DISKS[index]},discard=unmap`],
    ...['-device', `virtio-blk-pci,id=${o.ids}-${DISKS[index]},drive=drive-${DISKS[index]}`],
  ]);
  const child = await startedProcess(t, 'qemu-system-x86_64', [
    ...[...EMPTY_MACHINE, '-name', o.name, ...drives],
    ...['-qmp', `unix:${qmpPath},server=on,wait=off`, '-qmp', `unix:${monitorPath},server=on,wait=off`],
  ]);
  await socketListens(qmpPath);
  await socketListens(monitorPath);
  const monitor = await QmpClient.connect({ path: monitorPath, clock: systemClock });
  t.after(() => monitor.close());
  return {
    sockets: { qmpPath },
    write: async (disk: number, pattern: number, offset: number, length: number) => {
      const device = `/machine/peripheral/${o.ids}-${DISKS[disk]}/virtio-backend`;
      const line = `qemu-io -d ${device} "write -P ${pattern} ${offset} ${length}"`;
      assert.equal(await monitor.execute('human-monitor-command', { 'command-line': line }), '');
    },
    end: async () => {
      child.kill('SIGTERM');
      await exitOf(child);
    },
  };
}

it('S0.28 a machine that its owner starts elsewhere, called otherwise and with other devices, goes on incrementally; another machine is refused', async (t) => {
  const sites = await twoSites(t);
  const files = DISKS.map((disk) => join(sites.directory, `${disk}.qcow2`));
  for (const path of files)
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(8 * MIB)]);
  const at = (place: string) => join(sites.directory, place);
  const first = await startedByHand(t, at('one'), { name: 'first', ids: 'disk', files });
  const machine = await sites.adoptMachine(first.sockets);
  await machine.attach();
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  for (const disk of [0, 1]) await first.write(disk, 1 + disk, 0, 4 * MIB);
  await copyAndSend(machine, sites.target);
  await first.write(0, 3, 0, 8 * KIB);
  await copyAndSend(machine, sites.target);
  const { gone } = machine.running!;
  await first.end();
  await gone;

  const tips = DISKS.map((_, index) => machine.chain(`disk${index}`).at(-1)!.path);
  const second = await startedByHand(t, at('two'), { name: 'second', ids: 'other', files: tips });
  await second.write(0, 4, 8 * KIB, 8 * KIB);
  assert.equal((await machine.attach()).state, 'unreachable');
  await assert.rejects(machine.cut('crash'), { code: 'PROTECTION_STALE_BASE' });

  // Nothing there; then a machine there that is another one; nothing has changed by that.
  const before = await readFile(machine.layout.record, 'utf8');
  const place = (sockets: { qmpPath: string }) => ({ sockets, files: {} });
  await assert.rejects(machine.move(place({ qmpPath: at('nowhere') })), REFUSED);
  const strange = at('strange.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', strange, String(8 * MIB)]);
  const stranger = await startedByHand(t, at('three'), { name: 'first', ids: 'disk', files: [strange] });
  await assert.rejects(machine.move(place(stranger.sockets)), (error: Error & { code: string }) => {
    assert.match(`${error.code} ${error.message}`, /PROTECTION_MOVE_REFUSED|PROTECTION_STALE_BASE/);
    assert.match(error.message, /strange\.qcow2/);
    return true;
  });
  assert.equal(await readFile(machine.layout.record, 'utf8'), before);

  await machine.move(place(second.sockets));
  assert.equal(machine.presence.state, 'running');
  const uuid = '00000000-0000-0000-0000-000000000000';
  assert.deepEqual(await machine.running!.identity(), { uuid, name: 'second' });
  const third = await copyAndSend(machine, sites.target);
  assert.ok(third.wireBytes < 64 * KIB, `${third.wireBytes} bytes for 8 KiB that were written on 16 MiB`);
  t.diagnostic(`${third.wireBytes} bytes were sent after the move`);
  assert.equal(machine.record.name, 'first', 'what QEMU calls it does not matter');

  // The record holds: another process of ours finds it there, and merges go on.
  await machine.release();
  const again = await reopenMachine(sites);
  assert.equal((await again.attach()).state, 'running');
  await second.write(1, 5, MIB, 4 * KIB);
  const last = await copyAndSend(again, sites.target);
  assert.ok(last.wireBytes < 64 * KIB, `${last.wireBytes} bytes`);
  assert.equal(again.chain('disk0').length, 2);
  const replica = sites.replicas.need(machine.record.machineId);
  assert.equal(replica.points.length, 4);
  await verifyPoint(sites.replicaTools, replica, last.pointId);
  const expected = [Buffer.alloc(8 * MIB), Buffer.alloc(8 * MIB)];
  expected[0]!
    .fill(1, 0, 4 * MIB)
    .fill(3, 0, 8 * KIB)
    .fill(4, 8 * KIB, 16 * KIB);
  expected[1]!.fill(2, 0, 4 * MIB).fill(5, MIB, MIB + 4 * KIB);
  for (const [index, bytes] of expected.entries()) {
    const found = await bytesOf(sites.protectedTools.images, replica.chain(last.pointId, `disk${index}`));
    assert.ok(found.equals(bytes), `disk${index} does not read as it was written`);
  }
  await again.release();
});

it('S0.28 an owner puts the file of a disk elsewhere: the same content goes on incrementally, another one is refused', async (t) => {
  const { sites, machine, replica, ...box } = await monitoredMachine(t);
  await box.write(1, 0, 400 * KIB);
  await box.write(2, 0, MIB, 'steady');
  // One copy alone: its record still names the owner's file.
  await copyAndSend(machine, sites.target);
  await box.write(3, 0, 8 * KIB);
  await box.switchOff();

  const elsewhere = join(sites.directory, 'elsewhere');
  await mkdir(elsewhere);
  const moved = join(elsewhere, 'moved.qcow2');
  const place = { files: { disk: { path: moved, format: 'qcow2' as const } } };
  await assert.rejects(machine.move(place), { code: 'PROTECTION_DISK_GONE' });
  await rename(box.pathOf('disk'), moved);
  assert.equal((await machine.attach()).state, 'stale');
  await assert.rejects(machine.cut('crash'), { code: 'PROTECTION_DISK_GONE' });

  // A copy of it that differs in one byte is not the disk.
  const good = await readFile(moved);
  const at = good.lastIndexOf(Buffer.alloc(4096, 1));
  await writeFile(moved, Buffer.from(good).fill(9, at, at + 1));
  await assert.rejects(machine.move(place), REFUSED);
  const unknown = { files: { other: place.files.disk } };
  await assert.rejects(machine.move(unknown), { code: 'PROTECTION_DISK_UNKNOWN' });
  assert.equal(machine.record.disks[0]!.chain.at(-1)!.path, box.pathOf('disk'));
  await writeFile(moved, good);

  await machine.move(place);
  assert.deepEqual([machine.presence.state, machine.record.suspect], ['stopped', undefined]);
  const lowest = machine.chain('disk')[1]!.path;
  const info = JSON.parse((await runCommand('qemu-img', ['info', '--output=json', lowest])).stdout);
  assert.equal(
    info['full-backing-filename'] ?? info['backing-filename'],
    moved,
    'whoever starts from the tip alone finds it',
  );

  await machine.release();
  const again = await reopenMachine(sites);
  assert.equal((await again.attach()).state, 'stopped');
  await again.start();
  await box.listen();
  await box.write(4, 200 * KIB, 4 * KIB);
  const second = await copyAndSend(again, sites.target);
  assert.ok(second.wireBytes < 64 * KIB, `${second.wireBytes} bytes`);
  await box.write(5, 0, 4 * KIB, 'steady');
  const third = await copyAndSend(again, sites.target);
  assert.ok(third.wireBytes < 64 * KIB, `${third.wireBytes} bytes`);
  t.diagnostic(`${second.wireBytes} and ${third.wireBytes} bytes were sent after the move`);
  await box.assertPoint(third.pointId, box.contents());
  assert.deepEqual(
    again.chain('disk').map(({ path }) => path === moved),
    [true, false],
  );

  // Merged into the file at its new place, and given back there.
  const device = (await again.running!.disks()).find(({ chain }) => chain[0]?.path === moved);
  assert.ok(device, 'QEMU has the disk on its file at the new place');
  const running = again.running!;
  await again.unprotect();
  await running.quit();
  const found = await bytesOf(sites.protectedTools.images, [{ path: moved, format: 'qcow2' }]);
  assert.ok(found.equals(box.contents().get('disk')!));
  await again.release();
});

it('S0.28 a disk that is moved before anything was acknowledged must be as large as it was', async (t) => {
  const { sites, machine, ...box } = await monitoredMachine(t);
  await box.write(1, 0, 100 * KIB);
  await machine.cut('crash');
  await box.switchOff();
  const moved = join(sites.directory, 'moved.qcow2');
  const place = { files: { disk: { path: moved, format: 'qcow2' as const } } };
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', moved, String(MIB)]);
  await assert.rejects(machine.move(place), REFUSED);
  await copyFile(box.pathOf('disk'), moved);
  await machine.move(place);
  await machine.start();
  await box.listen();
  await box.write(2, 0, 4 * KIB);
  await machine.cut('crash');
  assert.ok((await sendAll(machine, sites.target)) > 0);
  const { pointId } = machine.targets[0]!.record.acknowledged!;
  await box.assertPoint(pointId, box.contents());
});
