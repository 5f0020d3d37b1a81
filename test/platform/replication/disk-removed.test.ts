/** Disks that a machine loses while it is protected: taken out on somebody's word, or gone without one. */
import assert from 'node:assert/strict';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { Replicas } from '../../../src/replica/index.ts';
import { bytesOf } from '../../support/image-bytes.ts';
import { copyAndSend, sendAll } from '../../support/lab-sites.ts';
import { monitoredMachine } from '../../support/monitored-machine.ts';
import type { CleanUp } from '../../support/temporary.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const PROVEN = () => true;

/** With the disk `late`, which can be plugged in and out, in its first copy. */
async function withThreeDisks(t: CleanUp) {
  const box = await monitoredMachine(t);
  await box.create('late', MIB);
  await box.plugIn('late', box.pathOf('late'), MIB);
  await box.machine.addDisk(await box.plugged('late'));
  await box.write(1, 0, 64 * KIB);
  await box.write(2, 0, 64 * KIB, 'late');
  return box;
}

it('S0.28 a disk taken out is in no further point; older ones keep it until retention lets them go, and its file is given back whole', async (t) => {
  const { sites, machine, replica, ...box } = await withThreeDisks(t);
  const first = await copyAndSend(machine, sites.target);
  const withIt = box.contents();
  await box.write(3, 128 * KIB, 64 * KIB, 'late');
  const waiting = await machine.cut('crash');
  const waitingWithIt = box.contents();
  // After the last copy that has it: in its file, and in no point.
  await box.write(4, 256 * KIB, 64 * KIB, 'late');
  const given = box.contents().get('late')!;

  await machine.removeDisk('late');
  await assert.rejects(machine.removeDisk('late'), { code: 'PROTECTION_DISK_UNKNOWN' });
  const still = await machine.cut('crash');
  assert.equal(still.leftOut, undefined);
  assert.deepEqual(Object.keys(still.sealed), ['disk', 'steady']);
  await sendAll(machine, sites.target);
  // The machine has it still, and writes to it: it is given back when the machine is off.
  assert.equal(machine.chain('late').length, 3);
  await box.plugOut('late');
  await box.write(5, 300 * KIB, 4 * KIB);
  const last = await copyAndSend(machine, sites.target);
  await box.assertPoint(last.pointId, box.contents());
  await box.assertPoint(first.pointId, withIt);
  await box.assertPoint(waiting.cutId, waitingWithIt);

  await box.switchOff();
  assert.deepEqual(
    machine.record.disks.map(({ diskId }) => diskId),
    ['disk', 'steady'],
  );
  const own = [{ path: box.pathOf('late'), format: 'qcow2' as const }];
  assert.ok((await bytesOf(sites.protectedTools.images, own)).equals(given));
  assert.deepEqual((await readdir(machine.layout.disks)).sort(), ['disk', 'steady']);
  assert.deepEqual((await readdir(join(machine.layout.directory, 'leaves'))).sort(), ['disk', 'steady']);

  // Its layers go with the last point that has it; then its id may still not be used for another disk.
  const layersOf = () => readdir(replica().layout.disk('late'));
  await replica().retire({ types: { crash: 3 } }, PROVEN);
  assert.equal((await layersOf()).filter((name) => name.endsWith('.qcow2')).length, 1);
  await box.assertPoint(waiting.cutId, waitingWithIt);
  await replica().retire({ types: { crash: 1 } }, PROVEN);
  assert.deepEqual(await layersOf(), []);
  await box.assertPoint(last.pointId, box.contents());
  await Replicas.open(sites.replicaTools, join(sites.directory, 'r'));
  // It is in the machine by its owner's will, and nobody is told that it is not copied.
  await machine.start();
  await box.listen();
  await box.plugIn('late', box.pathOf('late'), MIB);
  assert.equal((await machine.cut('crash')).leftOut, undefined);
  await assert.rejects(
    box.plugged('late').then((disk) => machine.addDisk(disk)),
    {
      code: 'PROTECTION_DISK_TAKEN',
    },
  );
  await assert.rejects(
    machine.removeDisk('disk').then(() => machine.removeDisk('steady')),
    {
      code: 'PROTECTION_DISK_LAST',
    },
  );
});

it('S0.28 S0.11 a disk that is gone without a word stops the copies, and comes back incrementally, or is taken out', async (t) => {
  const { sites, machine, ...box } = await withThreeDisks(t);
  const first = await copyAndSend(machine, sites.target);
  const before = box.contents();
  const tip = machine.chain('late').at(-1)!.path;
  await box.plugOut('late');
  await assert.rejects(machine.cut('crash'), { code: 'PROTECTION_DISK_GONE' });
  assert.equal((await machine.look()).state, 'stale');
  await assert.rejects(machine.replicate(sites.target), { code: 'PROTECTION_DISK_GONE' });
  assert.deepEqual(machine.record.gone, ['late']);

  // Plugged in again as it was: its content is compared, and the copies go on.
  await box.plugIn('late', tip, MIB);
  box.holds('late', Buffer.from(before.get('late')!));
  assert.equal((await machine.look()).state, 'running');
  assert.equal(machine.record.gone, undefined);
  assert.equal(machine.record.suspect, undefined);
  await box.write(7, 512 * KIB, 4 * KIB, 'late');
  const back = await copyAndSend(machine, sites.target);
  assert.ok(back.wireBytes < 64 * KIB, `${back.wireBytes} bytes`);
  await box.assertPoint(back.pointId, box.contents());
  await box.assertPoint(first.pointId, before);

  // Gone for good, files and all, and copies with it not sent.
  await box.write(8, 600 * KIB, 4 * KIB, 'late');
  const unsent = await machine.cut('crash');
  await box.plugOut('late');
  await box.switchOff();
  await rm(box.pathOf('late'));
  await assert.rejects(machine.cut('crash'), { code: 'PROTECTION_DISK_GONE' });
  await machine.removeDisk('late');
  assert.equal(machine.presence.state, 'stopped');
  // The copy that waits has become one without it.
  assert.equal(await machine.hasUncutChanges(), false);
  await sendAll(machine, sites.target);
  await box.assertPoint(unsent.cutId, box.contents());
  const { degraded } = sites.replicas.need(machine.record.machineId).point(unsent.cutId).statement;
  assert.match(degraded ?? '', /late was lost/);
  assert.deepEqual(
    machine.record.disks.map(({ diskId }) => diskId),
    ['disk', 'steady'],
  );
  await machine.start();
  assert.equal(machine.presence.state, 'running');
});
