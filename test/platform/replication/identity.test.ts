/** Machines that become something else without being another one: renamed here or by their owner. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { uploadingBy } from '../../support/direct-target.ts';
import { copyAndSend, sendAll } from '../../support/lab-sites.ts';
import { monitoredMachine } from '../../support/monitored-machine.ts';
import { reopenMachine } from '../../support/two-sites.ts';

const KIB = 1024;

it('S0.28 a machine is renamed while the acknowledgement of a point is lost: the point is known again, and the next one has the new name', async (t) => {
  const { sites, machine, replica, ...box } = await monitoredMachine(t);
  await box.write(1, 0, 300 * KIB);
  await copyAndSend(machine, sites.target);
  await box.write(2, 0, 8 * KIB);
  const { cutId } = await machine.cut('crash');
  const lossy = uploadingBy(sites.target, async (...upload) => {
    await sites.target.upload(...upload);
    throw new Error('the answer is lost');
  });
  await assert.rejects(machine.replicate(lossy), /lost/);
  assert.equal(replica().newest?.statement.pointId, cutId);

  await machine.rename('crate');
  await machine.release();
  const again = await reopenMachine(sites);
  await again.attach();
  assert.equal((await again.replicate(sites.target)).kind, 'acknowledged');
  await box.write(3, 0, 8 * KIB);
  const last = await copyAndSend(again, sites.target);
  assert.ok(last.wireBytes < 64 * KIB, `${last.wireBytes} bytes`);
  const told = replica().points.map(({ statement: { machineName, configuration } }) => [
    machineName,
    (configuration as { name: string }).name,
  ]);
  assert.deepEqual(told, [
    ['lab', 'lab'],
    ['lab', 'lab'],
    ['crate', 'crate'],
  ]);
  await box.assertPoint(last.pointId, box.contents());
  assert.equal(await sendAll(again, sites.target), 0);
  await again.release();
});
