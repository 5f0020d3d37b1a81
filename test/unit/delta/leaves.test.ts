import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  blockDigest,
  DigestTree,
  decodeLeaves,
  encodeLeaves,
  inheritedBlocks,
  type LayerLeaves,
  type Leaf,
  mergeLeaves,
  readLeaves,
  treeOfLayers,
  writeLeaves,
} from '../../../src/delta/index.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const BLOCK = 4096;
const leaf = (index: number, byte = 1): Leaf => ({ index, digest: Buffer.alloc(32, byte) });
const layer = (blocks: number, inherited: number, leaves: Leaf[]): LayerLeaves => ({
  sizeBytes: blocks * BLOCK,
  blockBytes: BLOCK,
  inheritedBlocks: inherited,
  leaves,
});
const bytesOf = (leaves: LayerLeaves) => Buffer.concat([...encodeLeaves(leaves)]);
const damaged = (error: unknown) => isFailure(error, 'DELTA_LEAVES_CORRUPT');

test('a leaves file gives back what was written, and leaves nothing aside', async (t) => {
  const path = join(await temporaryDirectory(t), 'point.leaves');
  for (const count of [0, 1, 256, 257, 768, 26_000, 60_001]) {
    const given = layer(
      70_000,
      70_000,
      Array.from({ length: count }, (_, i) => leaf(i, i & 255)),
    );
    await writeLeaves(nodeFiles, path, given);
    const read = await readLeaves(nodeFiles, path);
    assert.deepEqual({ ...read, leaves: [...read.leaves] }, { ...given, count });
    assert.equal((await readFile(path)).length, 64 + 40 * count);
  }
  assert.deepEqual(await readdir(join(path, '..')), ['point.leaves']);
});

test('every damaged bit and every truncation of a leaves file is found', () => {
  const good = bytesOf(layer(10, 10, [leaf(1), leaf(3), leaf(9)]));
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bytes = Buffer.from(good);
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(() => decodeLeaves(bytes, 'x'), damaged, `bit ${bit}`);
  }
  for (let length = 0; length < good.length; length++) {
    assert.throws(() => decodeLeaves(good.subarray(0, length), 'x'), damaged, `length ${length}`);
  }
});

test('a file with a right sum and wrong content is refused', async (t) => {
  const path = join(await temporaryDirectory(t), 'point.leaves');
  const good = bytesOf(layer(10, 10, [leaf(1), leaf(3)])).subarray(0, -32);
  const sealed = (change: (bytes: Buffer) => Buffer | undefined) => {
    const copy = Buffer.from(good);
    const bytes = change(copy) ?? copy;
    return Buffer.concat([bytes, createHash('sha256').update(bytes).digest()]);
  };
  const cases: ((bytes: Buffer) => Buffer | undefined)[] = [
    (b) => void b.writeUInt32BE(0, 8),
    (b) => void b.writeUInt32BE(5000, 12),
    (b) => void b.writeUInt32BE(2 ** 31, 12),
    (b) => void b.writeBigUInt64BE(0n, 16),
    (b) => void b.writeBigUInt64BE(2n ** 51n, 16),
    (b) => void b.writeBigUInt64BE(2n ** 63n, 16),
    (b) => void b.writeBigUInt64BE(11n, 24),
    (b) => void b.writeBigUInt64BE(10n, 72),
    (b) => void b.writeBigUInt64BE(1n, 72),
    (b) => void b.writeBigUInt64BE(2n ** 60n, 72),
    (b) => b.subarray(0, -1),
    (b) => Buffer.concat([b, Buffer.alloc(8)]),
  ];
  assert.equal(
    decodeLeaves(
      sealed(() => undefined),
      'x',
    ).count,
    2,
  );
  for (const change of cases) {
    await writeFile(path, sealed(change));
    await assert.rejects(readLeaves(nodeFiles, path), damaged, String(change));
  }
  await writeFile(
    path,
    sealed((b) => void b.writeUInt32BE(2, 8)),
  );
  await assert.rejects(readLeaves(nodeFiles, path), (e) => isFailure(e, 'DELTA_NEWER'));
  await assert.rejects(readLeaves(nodeFiles, `${path}.none`), (e) => isFailure(e, 'FILE_UNREADABLE'));
});

test('layers that do not fit each other are refused', () => {
  const other = { ...layer(10, 10, []), blockBytes: 8192 };
  assert.throws(() => mergeLeaves(layer(10, 0, []), other), damaged);
  assert.throws(() => treeOfLayers([layer(10, 0, []), other]), damaged);
  assert.throws(() => treeOfLayers([layer(10, 10, [])]), damaged);
  assert.throws(() => treeOfLayers([layer(5, 0, []), layer(10, 6, [])]), damaged);
});

test('trees from layers, merged in any order, equal the tree of the disk, also when its size changes', () => {
  const write = fc.record({ at: fc.nat(), byte: fc.nat(2) });
  const stage = fc.record({
    sectors: fc.option(fc.integer({ min: 1, max: 700 })),
    writes: fc.array(write, { maxLength: 12 }),
  });
  fc.assert(
    fc.property(fc.array(stage, { minLength: 1, maxLength: 6 }), fc.array(fc.nat()), (stages, merges) => {
      let disk = Buffer.alloc(0);
      const layers: LayerLeaves[] = [];
      for (const { sectors, writes } of stages) {
        const before = disk;
        disk = Buffer.alloc(sectors ? sectors * 512 : before.length || 512);
        before.copy(disk);
        const count = Math.ceil(disk.length / BLOCK);
        for (const { at, byte } of writes)
          disk.subarray((at % count) * BLOCK, ((at % count) + 1) * BLOCK).fill(byte);
        const parent = layers.length === 0 ? null : before.length;
        const inherited = inheritedBlocks(parent, disk.length, BLOCK);
        const leaves: Leaf[] = [];
        for (let i = 0; i < count; i++) {
          const now = disk.subarray(i * BLOCK, (i + 1) * BLOCK);
          const was = i < inherited ? before.subarray(i * BLOCK, (i + 1) * BLOCK) : Buffer.alloc(now.length);
          if (!now.equals(was)) leaves.push({ index: i, digest: blockDigest(now) });
        }
        layers.push({ sizeBytes: disk.length, blockBytes: BLOCK, inheritedBlocks: inherited, leaves });
      }
      const whole = new DigestTree({ sizeBytes: disk.length, blockBytes: BLOCK });
      for (let i = 0; i < whole.blockCount; i++)
        whole.set(i, blockDigest(disk.subarray(i * BLOCK, (i + 1) * BLOCK)));
      assert.deepEqual(treeOfLayers(layers).root(), whole.root());
      for (const choice of merges) {
        if (layers.length < 2) break;
        const at = choice % (layers.length - 1);
        const merged = mergeLeaves(layers[at]!, layers[at + 1]!);
        layers.splice(at, 2, decodeLeaves(bytesOf(merged), 'merged'));
        assert.deepEqual(treeOfLayers(layers).root(), whole.root());
      }
    }),
    { numRuns: 200 },
  );
});

test('a leaves file is published durably: written and synced aside, then renamed, then the directory synced', async (t) => {
  const path = join(await temporaryDirectory(t), 'point.leaves');
  const acts: string[] = [];
  const noting = <T>(act: string, work: () => T): T => {
    acts.push(act);
    return work();
  };
  const watched: FileSystem = {
    ...nodeFiles,
    async open(name, how) {
      const handle = await nodeFiles.open(name, how);
      return {
        read: (target, position) => handle.read(target, position),
        write: (data, position) => noting('write', () => handle.write(data, position)),
        writeAll: (buffers, position) => noting('write', () => handle.writeAll(buffers, position)),
        writeDirect: (data, position) => noting('write', () => handle.writeDirect(data, position)),
        truncate: (size) => handle.truncate(size),
        sizeBytes: () => handle.sizeBytes(),
        sync: () => noting(`sync ${name === `${path}.new`}`, () => handle.sync()),
        close: () => handle.close(),
      };
    },
    rename: (from, to) => noting('rename', () => nodeFiles.rename(from, to)),
    syncDirectory: (name) => noting('sync directory', () => nodeFiles.syncDirectory(name)),
  };
  await writeLeaves(watched, path, layer(10, 0, [leaf(1)]));
  assert.deepEqual(acts.slice(acts.lastIndexOf('write')), ['write', 'sync true', 'rename', 'sync directory']);
});
