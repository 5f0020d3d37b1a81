import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { blockDigest, DigestTree } from '../../../src/delta/index.ts';
import type { ImageReader } from '../../../src/hypervisor/index.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { piecesOfDisk } from '../../../src/replication/delta-source.ts';
import { OlderLeaves } from '../../../src/replication/older-leaves.ts';

const MIB = 1024 * 1024;

test('a whole disk is read through a few buffers, used in turn, and its pieces are what was read', async () => {
  const sizeBytes = 40 * MIB;
  const all = [{ offset: 0, length: sizeBytes }];
  const buffers = new Set<ArrayBufferLike>();
  const reader: ImageReader = {
    sizeBytes,
    readInto: async (target, offset) => {
      buffers.add(target.buffer);
      target.fill(1 + offset / MIB);
    },
    ownExtents: async () => ({ data: all, zero: [] }),
    contentExtents: async () => ({ data: all, zero: [] }),
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
  const tree = new DigestTree({ sizeBytes, blockBytes: 65_536 });
  let next = 0;
  for await (const piece of piecesOfDisk({
    ...{ diskIndex: 0, reader, data: all, zero: [], tree, from: 0, complete: true },
  })) {
    assert(piece.type === 'data' && piece.offset === next);
    assert(Buffer.alloc(piece.data.length, 1 + next / MIB).equals(piece.data));
    next += piece.data.length;
  }
  assert.equal(next, sizeBytes);
  assert(buffers.size <= 4, `${buffers.size} buffers`);
  assert.deepEqual(tree.get(16), blockDigest(Buffer.alloc(65_536, 2)));
});

test('S0.27 wherever a first copy broke off, and whatever older copies come and go, each byte comes exactly once', async () => {
  const blockBytes = 65_536;
  const blocks = 40;
  const sizeBytes = blocks * blockBytes - 4096;
  const content = Buffer.from(systemRandom.bytes(sizeBytes));
  // Blocks of zeros, and one that is zero in part.
  content.fill(0, 3 * blockBytes, 5 * blockBytes);
  content.fill(0, 20 * blockBytes + 8192, 21 * blockBytes);
  const data = [
    { offset: 0, length: 4 * blockBytes },
    { offset: 5 * blockBytes, length: 15 * blockBytes + 8192 },
    { offset: 21 * blockBytes, length: sizeBytes - 21 * blockBytes },
  ];
  const reader: ImageReader = {
    sizeBytes,
    readInto: async (target, offset) => void target.set(content.subarray(offset, offset + target.length)),
    ownExtents: () => assert.fail('it is read whole'),
    contentExtents: async () => ({ data, zero: [] }),
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
  };
  const whole = new DigestTree({ sizeBytes, blockBytes });
  for (let index = 0; index < blocks; index++)
    whole.set(index, blockDigest(content.subarray(index * blockBytes, (index + 1) * blockBytes)));
  const leg = fc.record({
    known: fc.array(fc.boolean(), { minLength: blocks, maxLength: blocks }),
    pieces: fc.integer({ min: 1, max: 12 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(leg, { minLength: 1, maxLength: 4 }), async (legs) => {
      const there = Buffer.alloc(sizeBytes);
      let from = 0;
      for (const [number, { known, pieces }] of legs.entries()) {
        const tree = new DigestTree({ sizeBytes, blockBytes });
        const older = new OlderLeaves({
          ...{ blockBytes, disk: { diskId: 'disk0', sizeBytes } },
          ask: async () =>
            Buffer.concat(known.map((isKnown, index) => (isKnown ? whole.get(index) : Buffer.alloc(32)))),
        });
        const isLast = number === legs.length - 1;
        let left = isLast ? Number.POSITIVE_INFINITY : pieces;
        const delta = { diskIndex: 0, reader, data, zero: [], tree, complete: true, from, older };
        for await (const piece of piecesOfDisk(delta)) {
          assert(piece.type !== 'zero' && piece.offset >= from);
          if (piece.type === 'data') {
            there.set(piece.data, piece.offset);
            from = piece.offset + piece.data.length;
          } else {
            assert.equal(piece.offset % blockBytes, 0);
            content.copy(there, piece.offset, piece.offset, piece.offset + piece.length);
            from = piece.offset + piece.length;
            assert(from % blockBytes === 0 || from === sizeBytes);
            assert.deepEqual(piece.leaves.length, Math.ceil(piece.length / blockBytes) * 32);
          }
          if (--left === 0) break;
        }
        if (isLast) assert.deepEqual(tree.root(), whole.root());
      }
      assert(there.equals(content));
    }),
    { numRuns: 60 },
  );
});
