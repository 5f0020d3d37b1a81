import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { SeedFile } from '../../../src/replica/index.ts';
import { chunks, copy, DETAILS, exported, importSeed, leavesOf, send } from '../../support/seed-acts.ts';
import { dyingFiles, readChain, seedSites } from '../../support/seed-sites.ts';

const MIB = 1024 * 1024;

test('S0.27 an import that is killed at any step leaves the replica awaiting its seed, or seeded', async (t) => {
  const sites = await exported(t);
  const { box, medium, target } = sites;
  await box.write(0, 3 * MIB);
  await copy(sites, box);
  const { path } = await box.machine.exportSeed(() => target, medium);
  await box.write(8192);
  await copy(sites, box);
  const { machineId } = box.machine.record;
  let kills = 0;
  for (let step = 0; ; step++) {
    // The clean-up of a start counts as steps too: its own number of changes comes before the import's.
    const { files, hasDied } = dyingFiles(step);
    try {
      const replica = await sites.openReplica(machineId, files);
      await importSeed(replica, path);
    } catch {
      // Whatever a dead process says; the directory is what counts.
    }
    const replica = await sites.openReplica(machineId);
    const isWhole = replica.describe().newest?.level === 'verified';
    assert.deepEqual(
      replica.points.map(({ statement }) => statement.sequence),
      isWhole ? [2, 3] : [1, 2, 3],
    );
    const newest = replica.newest!.statement.pointId;
    if (isWhole) {
      assert.ok((await readChain(replica.chain(newest, 'system'))).equals(await box.content()));
      if (!hasDied()) break;
    }
    kills += 1;
  }
  assert.ok(kills > 20, `${kills} kills`);
});

test('S0.27 an export and its announcement that are killed at any step are gone on with', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine();
  await box.machine.cut('crash');
  await box.write(0);
  const { machineId } = box.machine.record;
  let kills = 0;
  for (let step = 0; ; step++) {
    const { files, hasDied } = dyingFiles(step);
    try {
      const machine = await box.reopen(files);
      const { acknowledged } = machine.target ?? {};
      if (!acknowledged) await machine.exportSeed(() => sites.target, sites.medium);
      if (!hasDied()) await send(sites, machine);
    } catch {
      // Whatever a dead process says; the directory is what counts.
    }
    const machine = await box.reopen();
    const names = await readdir(sites.medium);
    assert.ok(names.length <= 1, names.join());
    const { acknowledged, seed } = machine.target!;
    if (seed?.state !== 'wanted') {
      await using file = await SeedFile.open(nodeFiles, join(sites.medium, names[0]!));
      assert.equal(file.statement.pointId, machine.cuts[0]?.cutId ?? acknowledged?.pointId);
    }
    if (!hasDied()) break;
    kills += 1;
  }
  assert.ok(kills > 20, `${kills} kills`);
  await copy(sites, box);
  const replica = await sites.openReplica(machineId);
  const [name] = await readdir(sites.medium);
  assert.equal((await importSeed(replica, join(sites.medium, name!))).kind, 'imported');
  const newest = replica.newest!.statement.pointId;
  assert.ok((await readChain(replica.chain(newest, 'system'))).equals(await box.content()));
});

test('S0.27 an announcement that is killed at any step, or lies, leaves nothing or a point that awaits its seed', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine();
  const { path } = await box.machine.exportSeed(() => sites.target, sites.medium);
  const { machineId } = box.machine.record;
  await using seed = await SeedFile.open(nodeFiles, path);
  const leaves = await leavesOf(sites, box);
  const announcement = (session: string) => ({ session, signed: seed.manifest.signed, skewMs: 0 });
  await sites.target.seeds
    .announce(
      { session: newId(systemClock, systemRandom), signed: seed.manifest.signed },
      DETAILS,
      chunks(leaves.subarray(0, 50)),
    )
    .then(
      () => assert.fail('half the leaves are no announcement'),
      (error) => assert.equal(error.code, 'REPLICA_DELTA_REFUSED'),
    );
  const flipped = Buffer.from(leaves);
  flipped[100]! ^= 1;
  const lying = await sites.openReplica(machineId);
  await assert.rejects(
    lying.announceSeed(announcement(newId(systemClock, systemRandom)), chunks(flipped)),
    /leaves/,
  );
  for (let step = 0; ; step++) {
    const { files, hasDied } = dyingFiles(step);
    try {
      const replica = await sites.openReplica(machineId, files);
      await replica.announceSeed(announcement(newId(systemClock, systemRandom)), chunks(leaves));
    } catch {
      // Whatever a dead process says; the directory is what counts.
    }
    const replica = await sites.openReplica(machineId);
    const level = replica.describe().newest?.level;
    assert.ok(level === undefined || level === 'awaiting-seed');
    if (!hasDied()) {
      assert.equal(level, 'awaiting-seed');
      assert.equal((await importSeed(replica, path)).kind, 'imported');
      return;
    }
  }
});
