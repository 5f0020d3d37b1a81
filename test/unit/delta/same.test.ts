import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { DeltaEncoder, type DeltaHeader, type DeltaPiece } from '../../../src/delta/index.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import {
  decoded,
  encoded,
  framesOf,
  rawFrame,
  rawHeader,
  rawPreamble,
  rawTrailer,
  SAMPLE_HEADER,
  SAMPLE_STATEMENT,
} from './delta-samples.ts';

const BLOCK = 65_536;
const HEADER: DeltaHeader = { ...SAMPLE_HEADER, sequence: 1, parent: null };
const leaf = (text: string) => createHash('sha256').update(text).digest();
const PIECES: readonly DeltaPiece[] = [
  { type: 'data', disk: 0, offset: 512, data: Buffer.alloc(512, 'warmsite ') },
  { type: 'same', disk: 0, offset: BLOCK, length: 2 * BLOCK, leaves: Buffer.concat([leaf('a'), leaf('b')]) },
  { type: 'same', disk: 1, offset: 0, length: 10_000, leaves: leaf('c') },
];
const TRAILER = { frames: 3, dataBytes: 512 + 2 * BLOCK + 10_000, zeroBytes: 0, statement: SAMPLE_STATEMENT };

test('S0.27 the stream of version 2, with blocks that an older copy has, is still read and written', async () => {
  const golden = await readFile(new URL('../../golden/delta/v2-same.delta', import.meta.url));
  assert.deepEqual(await encoded(HEADER, PIECES, { compression: 'none', same: true }), golden);
  const { header, frames } = await decoded(golden, {}, [1, 7, 300]);
  assert.deepEqual(header, HEADER);
  assert.deepEqual(frames, [...framesOf(PIECES), { type: 'trailer', trailer: TRAILER }]);
  const packed = await encoded(HEADER, PIECES, { compression: { zstdLevel: 1 }, same: true });
  assert.deepEqual((await decoded(packed)).frames, frames);
});

test('S0.27 blocks of an older copy are refused where they may not be, and where their leaves do not fit', async () => {
  const same = (o: {
    offset?: number;
    length?: number;
    leaves?: number;
    compression?: number;
    disk?: number;
  }) =>
    rawFrame({
      type: 5,
      offset: BigInt(o.offset ?? 0),
      length: BigInt(o.length ?? BLOCK),
      payload: Buffer.alloc(o.leaves ?? 32),
      compression: o.compression ?? 0,
      disk: o.disk ?? 0,
    });
  const stream = (frame: Buffer, header: object = HEADER, version = 2) =>
    Buffer.concat([
      rawPreamble(version),
      rawHeader(header),
      frame,
      rawTrailer(1, BLOCK, 0, SAMPLE_STATEMENT),
    ]);
  assert.equal((await decoded(stream(same({})))).frames.length, 2);
  const wrong: [string, Buffer, string?][] = [
    ['in version 1', stream(same({}), HEADER, 1)],
    ['upon a parent', stream(same({}), SAMPLE_HEADER)],
    ['not at a block', stream(same({ offset: 512 }))],
    ['a part of a block', stream(same({ length: 4096 }))],
    ['beyond the disk', stream(same({ offset: 16 * BLOCK }))],
    ['a leaf too few', stream(same({ length: 2 * BLOCK }))],
    ['a leaf too many', stream(same({ leaves: 64 }))],
    ['half a leaf', stream(same({ leaves: 16 }))],
    ['none', stream(same({ leaves: 0 }))],
    ['compressed', stream(same({ compression: 1 }))],
    ['no such disk', stream(same({ disk: 2 }))],
    ['more leaves than there may be', stream(same({ leaves: 8224 })), 'DELTA_LIMIT'],
  ];
  const large = { ...HEADER, disks: [{ diskId: 'disk-0', sizeBytes: 2 ** 30 }] };
  wrong.push(['more than 1 MiB', stream(same({ length: 17 * BLOCK, leaves: 17 * 32 }), large)]);
  for (const [what, bytes, code = 'DELTA_INVALID'] of wrong) {
    await assert.rejects(decoded(bytes), (error) => isFailure(error, code), what);
  }
});

test('a stream without an older copy is of version 1', async () => {
  assert.throws(() => {
    const encoder = new DeltaEncoder({ compression: 'none' });
    encoder.preamble(HEADER);
    encoder.same(0, 0, BLOCK, leaf('a'));
  });
  const [preamble] = new DeltaEncoder({ compression: 'none', same: false }).preamble(HEADER);
  assert.equal(preamble!.readUInt32BE(8), 1);
});
