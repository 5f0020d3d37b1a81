import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { blockDigest, DigestTree, isAllZero, zeroBlockDigest } from '../../../src/delta/index.ts';
import { systemRandom } from '../../../src/lib/random.ts';

const BLOCK = 4096;
const sha256 = (...parts: Uint8Array[]) => createHash('sha256').update(Buffer.concat(parts)).digest();

/** The root by the text of docs/format.md, from the whole disk, with nothing clever. */
function naiveRoot(disk: Buffer, blockBytes: number): Buffer {
  let level: Buffer[] = [];
  for (let at = 0; at < disk.length; at += blockBytes) level.push(sha256(disk.subarray(at, at + blockBytes)));
  while (level.length > 1) {
    const above: Buffer[] = [];
    for (let i = 0; i < level.length; i += 64) above.push(sha256(...level.slice(i, i + 64)));
    level = above;
  }
  const sizes = Buffer.alloc(12);
  sizes.writeBigUInt64BE(BigInt(disk.length), 0);
  sizes.writeUInt32BE(blockBytes, 8);
  return sha256(Buffer.from('warmsite.disk-root.1\0'), sizes, level[0]!);
}

function setFrom(tree: DigestTree, disk: Buffer, index: number) {
  tree.set(index, blockDigest(disk.subarray(index * BLOCK, Math.min(disk.length, (index + 1) * BLOCK))));
}

test('the root equals a full recomputation after any updates, copies and resizes', () => {
  const step = fc.oneof(
    fc.record({ act: fc.constant('write' as const), at: fc.nat(), byte: fc.nat(2) }),
    fc.record({ act: fc.constant('resize' as const), sectors: fc.integer({ min: 1, max: 1100 }) }),
    fc.record({ act: fc.constantFrom('copy' as const, 'root' as const) }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1100 }), fc.array(step, { maxLength: 25 }), (sectors, steps) => {
      let disk = Buffer.alloc(sectors * 512);
      let tree = new DigestTree({ sizeBytes: disk.length, blockBytes: BLOCK });
      const twins: { tree: DigestTree; root: Buffer }[] = [];
      for (const s of steps) {
        if (s.act === 'write') {
          const index = s.at % tree.blockCount;
          disk.subarray(index * BLOCK, (index + 1) * BLOCK).fill(s.byte);
          setFrom(tree, disk, index);
        } else if (s.act === 'resize') {
          const next = Buffer.alloc(s.sectors * 512);
          disk.copy(next);
          disk = next;
          const stale = tree.resize(disk.length);
          if (stale !== undefined) setFrom(tree, disk, stale);
        } else if (s.act === 'copy') {
          twins.push({ tree, root: naiveRoot(disk, BLOCK) });
          tree = tree.copy();
        } else assert.deepEqual(tree.root(), naiveRoot(disk, BLOCK));
      }
      assert.deepEqual(tree.root(), naiveRoot(disk, BLOCK));
      for (const twin of twins)
        assert.deepEqual(twin.tree.root(), twin.root, 'a copy does not change its origin');
      const leaves = [...tree.nonZeroLeaves()].map((leaf) => leaf.index);
      const expected = [];
      for (let i = 0; i < tree.blockCount; i++) {
        if (!isAllZero(disk.subarray(i * BLOCK, (i + 1) * BLOCK))) expected.push(i);
      }
      assert.deepEqual(leaves, expected);
    }),
    { numRuns: 150 },
  );
});

test('any changed block, another size and another block size give another root', () => {
  const tree = new DigestTree({ sizeBytes: 300 * BLOCK, blockBytes: BLOCK });
  const seen = new Set([tree.root().toString('hex')]);
  for (let i = 0; i < 300; i++) {
    const changed = tree.copy();
    changed.set(i, blockDigest(Buffer.alloc(BLOCK, 1)));
    seen.add(changed.root().toString('hex'));
  }
  seen.add(new DigestTree({ sizeBytes: 300 * BLOCK - 512, blockBytes: BLOCK }).root().toString('hex'));
  seen.add(new DigestTree({ sizeBytes: 300 * BLOCK, blockBytes: BLOCK * 2 }).root().toString('hex'));
  assert.equal(seen.size, 303);
});

test('an empty disk of a pebibyte costs nothing, and zeros written back give the memory back', () => {
  const tree = new DigestTree({ sizeBytes: 2 ** 50, blockBytes: 65_536 });
  const empty = tree.root();
  tree.set(2 ** 33, systemRandom.bytes(32));
  assert.notDeepEqual(tree.root(), empty);
  tree.set(2 ** 33, zeroBlockDigest(65_536));
  assert.deepEqual(tree.root(), empty);
  assert.deepEqual([...tree.nonZeroLeaves()], []);
});

test('a block whose length changed must be set again before the root is asked for', () => {
  const tree = new DigestTree({ sizeBytes: BLOCK + 512, blockBytes: BLOCK });
  tree.set(1, systemRandom.bytes(32));
  assert.equal(tree.resize(BLOCK + 1024), 1);
  assert.throws(() => tree.root(), /block 1 changed its length/);
  tree.set(1, zeroBlockDigest(1024));
  assert.deepEqual(tree.root(), new DigestTree({ sizeBytes: BLOCK + 1024, blockBytes: BLOCK }).root());
});

test('isAllZero finds a single byte anywhere', () => {
  fc.assert(
    fc.property(fc.nat(200_000), fc.nat(), fc.nat(7), (length, at, shift) => {
      const outer = Buffer.alloc(length + shift + 1, 0xff);
      const data = outer.subarray(shift, shift + length).fill(0);
      assert(isAllZero(data));
      if (length === 0) return;
      data[at % length] = 1;
      assert(!isAllZero(data));
    }),
  );
});
