import assert from 'node:assert/strict';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Failure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { PEER_ERRORS } from '../../../src/peer/index.ts';
import type { OlderFile } from '../../../src/replica/index.ts';
import type { ReplicationTarget } from '../../../src/replication/index.ts';
import { uploadingBy } from '../../support/direct-target.ts';
import { DISK_BYTES, dyingFiles, readChain, type SeedMachine, seedSites } from '../../support/seed-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const BLOCK = 65_536;
/** Half of each of the two disks is random, the rest zeros. */
const USED_BYTES = DISK_BYTES;
/** Frames, header and the signed statement. */
const OVERHEAD_BYTES = 8192;

/** Two sites, a machine with one copy that waits, and a place for older copies of its first disk at the other site. */
async function sitesWithCut(t: CleanUp) {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await box.machine.cut('crash');
  const content = await box.content();
  const older = async (bytes: Buffer, diskId = 'system'): Promise<OlderFile> => {
    const path = join(sites.directory, `older-${diskId}-${bytes.length}.raw`);
    await writeFile(path, bytes);
    return { diskId, path, format: 'raw' };
  };
  return { ...sites, box, content, older };
}

/** Sends the copy; it must be what the disks hold. Returns what crossed the wire and what was taken. */
async function sendTo(
  { directory, openReplica }: Awaited<ReturnType<typeof sitesWithCut>>,
  box: SeedMachine,
  target: ReplicationTarget,
) {
  const outcome = await box.machine.replicate(target);
  assert.equal(outcome.kind, 'sent', directory);
  const replica = await openReplica(box.machine.record.machineId);
  const { statement, manifest } = replica.newest!;
  const system = await readChain(replica.chain(statement.pointId, 'system'));
  assert.ok(system.equals(await box.content()));
  return {
    wireBytes: outcome.kind === 'sent' ? outcome.wireBytes : 0,
    olderBytes: manifest.olderBytes ?? 0,
  };
}

const flipped = (bytes: Buffer, ...offsets: number[]): Buffer => {
  const changed = Buffer.from(bytes);
  for (const offset of offsets) changed[offset]! ^= 1;
  return changed;
};

test('S0.27 of a machine whose disk is at the target in an older copy only the blocks that differ are sent', async (t) => {
  const sites = await sitesWithCut(t);
  const { box, content, older, targetOn, replicas, olderFor } = sites;
  // Three blocks differ; one of zeros here, and one of data where zeros are now.
  const old = flipped(content, 0, 5 * BLOCK + 17, DISK_BYTES / 2 - 1, DISK_BYTES - 1);
  const target = targetOn(replicas, olderFor([await older(old)]));
  const { wireBytes, olderBytes } = await sendTo(sites, box, target);
  const sameBytes = DISK_BYTES / 2 - 3 * BLOCK;
  assert.equal(olderBytes, sameBytes);
  const due = USED_BYTES - sameBytes;
  assert.ok(wireBytes < due + OVERHEAD_BYTES, `${wireBytes} bytes for ${due} that differ`);
  // From then on it is a replica like any other.
  await box.write(0);
  await box.machine.cut('crash');
  assert.ok((await sendTo(sites, box, target)).wireBytes < 2 * OVERHEAD_BYTES);
});

test('S0.27 an older copy may be shorter or longer than the disk, and each disk may have one', async (t) => {
  for (const [sizeBytes, sameBytes] of [
    [BLOCK + 512, BLOCK],
    [DISK_BYTES + 3 * BLOCK + 1024, DISK_BYTES / 2],
    [512, 0],
  ] as const) {
    const sites = await sitesWithCut(t);
    const { box, content, older, targetOn, replicas, olderFor } = sites;
    const long = Buffer.concat([content, systemRandom.bytes(4 * BLOCK)]);
    const data = await readChain(box.machine.chain('data'));
    const files = [await older(long.subarray(0, sizeBytes)), await older(data, 'data')];
    const { wireBytes, olderBytes } = await sendTo(sites, box, targetOn(replicas, olderFor(files)));
    assert.equal(olderBytes, sameBytes + DISK_BYTES / 2);
    assert.ok(wireBytes < USED_BYTES - olderBytes + OVERHEAD_BYTES, `${wireBytes} bytes`);
  }
});

test('S0.27 a copy of another machine, one that is not there and an old target cost bytes and nothing else', async (t) => {
  const foreign = Buffer.from(systemRandom.bytes(DISK_BYTES));
  const sites = await sitesWithCut(t);
  const { older, targetOn, replicas, olderFor } = sites;
  const file = await older(foreign);
  const unfit: string[] = [];
  const missing = { ...file, path: `${file.path}.none` };
  const offers: [string, ReplicationTarget][] = [
    ['foreign', targetOn(replicas, olderFor([file], unfit))],
    ['missing', targetOn(replicas, olderFor([missing], unfit))],
    ['a disk that the machine does not have', targetOn(replicas, olderFor([{ ...file, diskId: 'other' }]))],
    ['a target that knows of none', targetOn(replicas)],
  ];
  for (const [what, target] of offers) {
    const box = await sites.addMachine({ seed: false });
    await box.machine.cut('crash');
    const { wireBytes, olderBytes } = await sendTo(sites, box, target);
    assert.equal(olderBytes, 0, what);
    assert.ok(wireBytes > USED_BYTES && wireBytes < USED_BYTES + OVERHEAD_BYTES, `${what}: ${wireBytes}`);
  }
  assert.deepEqual(unfit, []);
});

test('S0.27 an older copy that changes while it is read is not used any more; what came before it stays', async (t) => {
  const sites = await sitesWithCut(t);
  const { box, content, older, targetOn, replicas, olderFor } = sites;
  const unfit: string[] = [];
  const file = await older(content);
  const target = targetOn(replicas, olderFor([file], unfit));
  const { olderLeaves } = target;
  target.olderLeaves = async (session, page) => {
    const leaves = await olderLeaves.call(target, session, page);
    // Its digests have been told; now somebody writes to it.
    const handle = await open(file.path, 'r+');
    await handle.write(Buffer.alloc(BLOCK, 7), 0, BLOCK, 20 * BLOCK);
    await handle.close();
    return leaves;
  };
  const { wireBytes, olderBytes } = await sendTo(sites, box, target);
  assert.deepEqual(unfit, ['system']);
  // Pieces are of 1 MiB: what was taken before the one that differs counts.
  assert.equal(olderBytes, 16 * BLOCK);
  assert.ok(wireBytes > USED_BYTES - DISK_BYTES / 2, `${wireBytes} bytes`);
});

test('S0.27 a broken first copy goes on where it was when an older copy has come, or gone, meanwhile', async (t) => {
  for (const comes of [true, false]) {
    const sites = await sitesWithCut(t);
    const { box, content, older, targetOn, replicas, olderFor } = sites;
    const withCopy = targetOn(replicas, olderFor([await older(flipped(content, 3 * BLOCK))]));
    const [first, second] = comes ? [targetOn(replicas), withCopy] : [withCopy, targetOn(replicas)];
    // The connection breaks in the second MiB of the first disk, or in the fourth block of the first, which differs.
    const breaking = uploadingBy(first, (machineId, session, stream) =>
      first.upload(machineId, session, cutOff(stream, comes ? 1_100_000 : 40_000)),
    );
    await assert.rejects(box.machine.replicate(breaking), /broken/);
    const replica = await sites.openReplica(box.machine.record.machineId);
    const { frames } = replica.describe().incoming!.progress;
    assert.ok(frames > 0, 'something is durable');
    const { wireBytes, olderBytes } = await sendTo(sites, box, second);
    assert.equal(olderBytes, comes ? DISK_BYTES / 2 - 16 * BLOCK : 3 * BLOCK, `${frames} frames`);
    assert.ok(wireBytes < USED_BYTES - olderBytes + OVERHEAD_BYTES);
  }
});

async function* cutOff(stream: AsyncIterable<Uint8Array | readonly Uint8Array[]>, bytes: number) {
  let left = bytes;
  for await (const chunk of stream) {
    for (const part of chunk instanceof Uint8Array ? [chunk] : chunk) {
      if (part.length > left)
        throw new Failure(
          'PEER_CONNECTION_LOST',
          PEER_ERRORS.PEER_CONNECTION_LOST,
          'the connection is broken',
        );
      left -= part.length;
      yield part;
    }
  }
}

test('S0.27 a first copy from an older one that is killed at any step at the target is gone on with', async (t) => {
  const sites = await sitesWithCut(t);
  const { box, content, older, openReplicas, targetOn, olderFor } = sites;
  const file = await older(flipped(content, 9 * BLOCK));
  let kills = 0;
  for (let step = 0; ; step++) {
    const { files, hasDied } = dyingFiles(step);
    try {
      await box.machine.replicate(targetOn(await openReplicas(files), olderFor([file])));
    } catch {
      // Whatever a dead process says; the directory is what counts.
    }
    if (!hasDied()) break;
    kills += 1;
    const newest = (await openReplicas(nodeFiles)).get(box.machine.record.machineId)?.newest;
    assert.ok(newest === undefined || newest.statement.sequence === 1);
    if (newest) break;
  }
  assert.ok(kills > 20, `${kills} kills`);
  const rest = await box.machine.replicate(targetOn(await openReplicas(nodeFiles), olderFor([file])));
  assert.ok(rest.kind === 'acknowledged' || rest.kind === 'nothing');
  const replica = await sites.openReplica(box.machine.record.machineId);
  const { pointId } = replica.newest!.statement;
  assert.ok((await readChain(replica.chain(pointId, 'system'))).equals(content));
  assert.ok((replica.newest!.manifest.olderBytes ?? 0) > 0);
});
