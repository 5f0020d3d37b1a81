import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blockDigest, DigestTree } from '../../../src/delta/index.ts';
import type { ImageReader } from '../../../src/hypervisor/index.ts';
import { piecesOfDisk } from '../../../src/replication/delta-source.ts';

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
