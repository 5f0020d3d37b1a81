import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { Window } from '../../../src/recovery-point/index.ts';
import { createBranch, encodeSeedEnd, SeedFile } from '../../../src/replica/index.ts';
import { uploadingBy } from '../../support/direct-target.ts';
import { copy, exported, importSeed, send } from '../../support/seed-acts.ts';
import { readChain, seedSites } from '../../support/seed-sites.ts';

const MIB = 1024 * 1024;

test('S0.27 deltas flow at once upon a base that has not come; the seed is put under them', async (t) => {
  const sites = await exported(t);
  const { box, seedPath } = sites;
  const { machine } = box;
  const { machineId } = machine.record;
  let wireBytes = 0;
  for (let i = 1; i <= 5; i++) {
    await box.write(i * 300_032 - ((i * 300_032) % 4096), 3 * MIB + i * 4096);
    wireBytes += await copy(sites, box);
  }
  assert.ok(wireBytes < MIB, `${wireBytes} bytes crossed the wire, the base has 4 MiB`);
  assert.equal(machine.target?.seed?.state, 'awaited');
  assert.equal(machine.cuts.length <= 3, true, 'the chain here stays short');

  const replica = await sites.openReplica(machineId);
  assert.equal(replica.points.length, 6);
  assert.equal(replica.describe().newest?.level, 'awaiting-seed');
  const about = { branchId: machineId, pointId: replica.newest!.statement.pointId, purpose: 'test' as const };
  await assert.rejects(createBranch(nodeFiles, replica, { ...about, createdAtMs: 0 }), {
    code: 'REPLICA_AWAITING_SEED',
  });

  await using seed = await SeedFile.open(nodeFiles, seedPath);
  assert.equal((await replica.seeding.import(seed)).kind, 'imported');
  assert.equal((await replica.seeding.import(seed)).kind, 'already');
  assert.equal(replica.describe().newest?.level, 'verified');
  const again = await sites.openReplica(machineId);
  assert.equal(again.points.length, 6);
  const { pointId } = again.newest!.statement;
  assert.ok((await readChain(again.chain(pointId, 'system'))).equals(await box.content()));
  assert.deepEqual(await readdir(replica.layout.quarantine).catch(() => []), []);
});

/** A replica that awaits its seed, with two points; every test holds that a refusal has changed nothing. */
async function awaiting(t: TestContext) {
  const sites = await exported(t);
  await sites.box.write(0, 3 * MIB);
  await copy(sites, sites.box);
  const replica = await sites.openReplica(sites.box.machine.record.machineId);
  const refuses = async (path: string, expected: { code: string; message: RegExp }) => {
    await assert.rejects(importSeed(replica, path), expected);
    assert.equal(replica.describe().newest?.level, 'awaiting-seed');
    assert.equal((await sites.openReplica(replica.record.machineId)).points.length, 2);
  };
  return { ...sites, replica, refuses };
}

async function changed(path: string, to: string, change: (bytes: Buffer) => Buffer): Promise<string> {
  await writeFile(to, change(await readFile(path)));
  return to;
}

test('S0.27 a damaged seed is refused: truncated, a flipped byte, empty, no seed at all', async (t) => {
  const { seedPath, medium, refuses } = await awaiting(t);
  const bad = join(medium, 'bad.wsseed');
  const damaged = 'REPLICA_SEED_DAMAGED';
  const size = (await readFile(seedPath)).length;
  for (const length of [0, 10, 1000, Math.floor(size / 2), size - 1]) {
    const path = await changed(seedPath, bad, (bytes) => bytes.subarray(0, length));
    await refuses(path, { code: damaged, message: /cut off/ });
  }
  for (const at of [3, 40, 600, Math.floor(size / 3), size - 3000, size - 100, size - 10]) {
    const path = await changed(seedPath, bad, (bytes) => {
      bytes[at]! ^= 1;
      return bytes;
    });
    await refuses(path, { code: damaged, message: /damaged/ });
  }
  await refuses(await changed(seedPath, bad, () => Buffer.alloc(100_000, 7)), {
    code: damaged,
    message: /no seed/,
  });
});

test('S0.27 a seed whose parts belong to two seeds is refused', async (t) => {
  const sites = await awaiting(t);
  const other = await sites.addMachine();
  const { path: otherPath } = await other.machine.exportSeed(
    () => sites.target,
    join(sites.medium, 'other.wsseed'),
  );
  await using own = await SeedFile.open(nodeFiles, sites.seedPath);
  await using foreign = await SeedFile.open(nodeFiles, otherPath);
  const stream = (await readFile(otherPath)).subarray(0, foreign.manifest.streamBytes);
  const mixed = join(sites.medium, 'mixed.wsseed');
  const { streamBytes, streamSha256 } = foreign.manifest;
  await writeFile(
    mixed,
    Buffer.concat([stream, encodeSeedEnd({ ...own.manifest, streamBytes, streamSha256 })]),
  );
  await sites.refuses(mixed, { code: 'REPLICA_SEED_REFUSED', message: /its stream is of point/ });
  await sites.refuses(otherPath, { code: 'REPLICA_SEED_REFUSED', message: /another machine/ });
});

test('S0.27 a seed with another content under the right name is refused by its digests', async (t) => {
  const sites = await awaiting(t);
  await using own = await SeedFile.open(nodeFiles, sites.seedPath);
  const { createHash } = await import('node:crypto');
  const { decodeDelta, encodeDelta } = await import('../../../src/delta/index.ts');
  const { header, frames } = await decodeDelta(own.stream());
  const chunks: Buffer[] = [];
  async function* forged() {
    for await (const frame of frames) {
      if (frame.type === 'data' && frame.number === 1) frame.data[5]! ^= 1;
      if (frame.type !== 'trailer') yield frame;
    }
  }
  const statement = () => own.manifest.signed as never;
  for await (const chunk of encodeDelta(header, forged(), statement, { compression: 'none' }))
    chunks.push(Buffer.from(chunk));
  const stream = Buffer.concat(chunks);
  const streamSha256 = createHash('sha256').update(stream).digest('hex');
  const end = encodeSeedEnd({ ...own.manifest, streamBytes: stream.length, streamSha256 });
  const path = join(sites.medium, 'forged.wsseed');
  await writeFile(path, Buffer.concat([stream, end]));
  await sites.refuses(path, { code: 'REPLICA_SEED_DAMAGED', message: /not what was signed/ });
  assert.equal((await importSeed(sites.replica, sites.seedPath)).kind, 'imported');
});

test('S0.27 a seed of an earlier protection, or of a site that is not paired, is refused', async (t) => {
  const sites = await awaiting(t);
  const { machine } = sites.box;
  const stranger = await seedSites(t);
  const theirs = await stranger.addMachine();
  const { path: strange } = await theirs.machine.exportSeed(() => stranger.target, stranger.medium);
  await sites.refuses(strange, { code: 'REPLICA_SEED_FOREIGN', message: /not signed by the site/ });
  // The same machine, protected anew: another cut, another first point.
  const { protection } = machine.record;
  await machine.unprotect();
  await machine.protect(protection!, { seed: true });
  const { path: other } = await machine.exportSeed(() => sites.target, join(sites.medium, 'again.wsseed'));
  await sites.refuses(other, { code: 'REPLICA_SEED_REFUSED', message: /awaits one of point 1/ });
});

test('S0.27 a seed that nobody awaits is refused: the machine was replicated over the wire', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await copy(sites, box);
  await assert.rejects(
    box.machine.exportSeed(() => sites.target, sites.medium),
    {
      code: 'REPLICATION_SEED_NOT_NEEDED',
    },
  );
  assert.equal(box.machine.target?.seed, undefined);
});

test('S0.27 nothing is sent before the seed is exported, and the export is announced by whoever comes next', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine();
  await box.machine.cut('crash');
  assert.equal((await box.machine.replicate(sites.target)).kind, 'nothing');
  await box.machine.exportSeed(() => sites.target, sites.medium);
  await box.write(0);
  const machine = await box.reopen();
  assert.equal(machine.target?.seed?.state, 'exported');
  await copy(sites, box);
  const replica = await sites.openReplica(machine.record.machineId);
  assert.equal(replica.points.length, 2);
});

test('S0.16 S0.27 the announcement of a seed keeps to the bandwidth of the hour', async (t) => {
  const sites = await seedSites(t);
  const { machine } = await sites.addMachine();
  const window: Window = {
    ...{ days: ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'], zone: 'UTC' },
    ...{ from: '00:00', to: '24:00' },
  };
  await machine.changeProtection({ limitWindows: [{ window, bytesPerSecond: 100_000 }] });
  const looks = t.mock.method(sites.zones, 'localMs').mock;
  await machine.exportSeed(() => sites.target, sites.medium);
  await send(sites, machine);
  assert.ok(looks.callCount() > 0, 'nobody asked what the hour allows');
});

test('S0.27 a cancelled export leaves nothing on the medium, a repeated one writes the same', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine();
  const abort = new AbortController();
  const onProgress = () => abort.abort();
  await assert.rejects(
    box.machine.exportSeed(() => sites.target, sites.medium, { signal: abort.signal, onProgress }),
    { code: 'CANCELLED' },
  );
  assert.deepEqual(await readdir(sites.medium), []);
  const { path } = await box.machine.exportSeed(() => sites.target, sites.medium);
  const again = join(sites.medium, 'again.wsseed');
  // What a killed export has left is gone on with, whatever is in it.
  const bytes = await readFile(path);
  bytes[5000]! ^= 1;
  await writeFile(`${again}.partial`, bytes.subarray(0, 900_000));
  await box.machine.exportSeed(() => sites.target, again);
  await using one = await SeedFile.open(nodeFiles, path);
  await using other = await SeedFile.open(nodeFiles, again);
  assert.equal(one.manifest.streamSha256, other.manifest.streamSha256);
  // Repeated it is done; what somebody else has put there is left alone.
  assert.equal((await box.machine.exportSeed(() => sites.target, again)).path, again);
  const taken = join(sites.medium, 'taken');
  await writeFile(taken, 'a thesis');
  await assert.rejects(
    box.machine.exportSeed(() => sites.target, taken),
    { code: 'REPLICATION_SEED_PATH' },
  );
  assert.equal(await readFile(taken, 'utf8'), 'a thesis');
});

test('S0.27 what a cancelled export of another seed has left is removed as of the first one; a seed that is whole stays', async (t) => {
  const sites = await exported(t);
  const { machine } = sites.box;
  await copy(sites, sites.box);
  assert.equal(machine.target?.seed?.state, 'awaited');
  const other = join(sites.directory, 'other');
  await mkdir(other);
  const killed = new AbortController();
  const { signal } = killed;
  const onProgress = () => killed.abort(new Error('killed'));
  await assert.rejects(
    machine.exportSeed(() => sites.target, other, { signal, onProgress }),
    /killed/,
  );
  assert.match((await readdir(other)).join(), /^[^,]+\.wsseed\.partial$/);
  await machine.dropSeed(other);
  assert.deepEqual(await readdir(other), []);
  const { path } = await machine.exportSeed(() => sites.target, other);
  await machine.dropSeed(other);
  assert.deepEqual(await readdir(other), [basename(path)]);
});

test('S0.27 a lost seed is replaced by one of the point acknowledged last; the points below it go', async (t) => {
  const sites = await exported(t);
  const { box, medium, seedPath, target } = sites;
  for (let i = 1; i <= 3; i++) {
    await box.write(i * 8192);
    await copy(sites, box);
  }
  const { path, sequence } = await box.machine.exportSeed(() => target, medium);
  assert.equal(sequence, 4);
  await box.write(3 * MIB);
  await copy(sites, box);
  const replica = await sites.openReplica(box.machine.record.machineId);
  assert.equal((await importSeed(replica, path)).kind, 'imported');
  assert.deepEqual(
    replica.points.map(({ statement }) => statement.sequence),
    [4, 5],
  );
  await assert.rejects(importSeed(replica, seedPath), { code: 'REPLICA_SEED_REFUSED' });
  const again = await sites.openReplica(box.machine.record.machineId);
  const newest = again.newest!.statement.pointId;
  assert.ok((await readChain(again.chain(newest, 'system'))).equals(await box.content()));
});

test('S0.27 retention keeps the stand-in and every point of which a seed is on its way', async (t) => {
  const sites = await exported(t);
  const { box, medium, target, seedPath } = sites;
  for (let i = 1; i <= 6; i++) {
    await box.write(i * 8192);
    await copy(sites, box);
    if (i === 3) await box.machine.exportSeed(() => target, medium);
  }
  const replica = await sites.openReplica(box.machine.record.machineId);
  await replica.retire({ types: { crash: 1, app: 0 } }, () => false);
  assert.deepEqual(
    replica.points.map(({ statement }) => statement.sequence),
    [1, 4, 7],
  );
  assert.equal((await importSeed(replica, seedPath)).kind, 'imported');
  const newest = replica.newest!.statement.pointId;
  assert.ok((await readChain(replica.chain(newest, 'system'))).equals(await box.content()));
  await replica.retire({ types: { crash: 1, app: 0 } }, () => false);
  assert.ok((await readChain(replica.chain(newest, 'system'))).equals(await box.content()));
});

test('S0.27 deltas arrive while the seed is imported; a replica in import is not removed', async (t) => {
  const sites = await exported(t);
  const { box, seedPath, target } = sites;
  await box.write(0);
  await copy(sites, box);
  const replica = sites.replicas.need(box.machine.record.machineId);
  await using seed = await SeedFile.open(nodeFiles, seedPath);
  await box.write(8192);
  await box.machine.cut('crash');
  let sent: Promise<unknown> | undefined;
  const imported = replica.seeding.import(seed, {
    onProgress: () => {
      sent ??= box.machine.replicate(target);
    },
  });
  await assert.rejects(sites.replicas.remove(replica.record.machineId), { code: 'REPLICA_NEEDED' });
  await imported;
  await sent;
  await box.write(3 * MIB);
  await copy(sites, box);
  assert.equal(replica.points.length, 4);
  assert.equal(replica.describe().newest?.level, 'verified');
  assert.equal(box.machine.target?.seed, undefined);
  const newest = replica.newest!.statement.pointId;
  assert.ok((await readChain(replica.chain(newest, 'system'))).equals(await box.content()));
});

test('S0.27 a lost acknowledgement and a broken upload before the seed, and the seed between', async (t) => {
  const sites = await exported(t);
  const { box, target, seedPath } = sites;
  await send(sites, box.machine);
  await box.write(4096, 3 * MIB);
  await box.machine.cut('crash');
  const losing = uploadingBy(target, async (...upload) => {
    await target.upload(...upload);
    throw new Error('the answer is lost');
  });
  await assert.rejects(box.machine.replicate(losing), /lost/);
  assert.equal((await box.machine.replicate(target)).kind, 'acknowledged');

  await box.write(1_000 * 4096, 3 * MIB);
  await box.machine.cut('crash');
  const breaking = uploadingBy(target, async (machineId, session, stream) => {
    async function* half() {
      let bytes = 0;
      for await (const chunk of stream) {
        yield chunk;
        bytes += [chunk].flat().reduce((sum, part) => sum + part.length, 0);
        if (bytes > 4_000) return;
      }
    }
    return target.upload(machineId, session, half());
  });
  await assert.rejects(box.machine.replicate(breaking), { code: 'DELTA_TRUNCATED' });
  const replica = sites.replicas.need(box.machine.record.machineId);
  await importSeed(replica, seedPath);
  // What was begun in whole blocks is ended in whole blocks.
  const machine = await box.reopen();
  await send(sites, machine);
  assert.equal(machine.target?.seed, undefined);
  const newest = replica.newest!.statement;
  assert.equal(newest.sequence, 3);
  assert.ok((await readChain(replica.chain(newest.pointId, 'system'))).equals(await box.content()));
});
