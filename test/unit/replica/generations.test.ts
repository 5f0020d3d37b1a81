/** What a site has of a machine whose replication has turned: the newest generation counts, and the older ones stay as they are. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { Replicas, type ReplicaTools } from '../../../src/replica/index.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { copy } from '../../support/seed-acts.ts';
import { readChain, seedSites } from '../../support/seed-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const ONE = { types: { crash: 1 } };
const NEVER_PROVEN = () => false;

async function replicaOfTwo(t: CleanUp) {
  const { directory, zones, ...sites } = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  for (const offset of [0, 65_536]) {
    await box.write(offset);
    await copy({ directory, zones, ...sites }, box);
  }
  const tools: ReplicaTools = {
    ...{ files: nodeFiles, clock: systemClock, log: silentLog, zones, isSignedBySource: () => true },
    images: new FakeImages({ files: nodeFiles, locks: new ImageLocks() }),
  };
  const open = () => Replicas.open(tools, join(directory, 'r'));
  return { box, open, machineId: box.machine.record.machineId };
}

test('F4 nothing is merged below a machine that is at home upon a branch, nor received', async (t) => {
  const { open, machineId } = await replicaOfTwo(t);
  const replica = (await open()).need(machineId);
  const branchId = newId(systemClock, systemRandom);
  await replica.update({ adopted: branchId });
  assert.equal(await replica.retire(ONE, NEVER_PROVEN), 0);
  assert.equal(replica.points.length, 2);
  const reopened = (await open()).need(machineId);
  assert.deepEqual([reopened.record.adopted, reopened.points.length], [branchId, 2]);
  await reopened.update({ adopted: undefined });
  assert.equal(await reopened.retire(ONE, NEVER_PROVEN), 1);
  assert.equal((await open()).need(machineId).record.adopted, undefined);
});

test('F4 a replica begins anew beside the one that a machine lies upon, and that is there again when the new one goes', async (t) => {
  const { box, open, machineId } = await replicaOfTwo(t);
  const replicas = await open();
  const old = replicas.need(machineId);
  const about = { sourceSiteId: old.record.sourceSiteId, machineName: 'box', retention: ONE };
  const offered = { machineId, epoch: 3 };
  assert.equal(
    await replicas.forOffer(offered, { ...about, generation: 3 }),
    old,
    'it is in no way of its own copies',
  );
  await old.update({ adopted: newId(systemClock, systemRandom) });
  assert.equal(await replicas.forOffer(offered, about), old, 'nobody has asked for another one');
  const [anew, twice] = await Promise.all([
    replicas.forOffer(offered, { ...about, generation: 3 }),
    replicas.forOffer(offered, { ...about, generation: 3 }),
  ]);
  assert.equal(anew, twice);
  assert.deepEqual([anew.points.length, anew.record.epoch, anew.record.tenure?.state], [0, 3, 'follows']);
  assert.notEqual(anew.layout.directory, old.layout.directory);
  assert.equal(replicas.need(machineId), anew);
  assert.equal((await open()).need(machineId).record.epoch, 3);

  await replicas.remove(machineId);
  assert.equal(replicas.need(machineId).points.length, 2);
  const left = (await open()).need(machineId);
  const { pointId } = left.newest!.statement;
  assert.ok((await readChain(left.chain(pointId, 'system'))).equals(await box.content()));
});
