import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import type { Json } from '../../../src/lib/canonical-json.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import {
  chunksOf,
  decoded,
  encoded,
  rawFrame,
  rawHeader,
  rawPreamble,
  rawStream,
  rawTrailer,
  SAMPLE_HEADER,
  SAMPLE_PIECES,
} from './delta-samples.ts';

const refused = (bytes: Uint8Array, ...codes: string[]) =>
  assert.rejects(decoded(bytes), (error) => {
    assert(isFailure(error, ...codes), `expected ${codes}, got ${error}`);
    return true;
  });

const zero = (offset: number, length: number, disk = 0) =>
  rawFrame({ type: 3, disk, offset: BigInt(offset), length: BigInt(length) });
const data = (offset: number, payload: Buffer, length = payload.length, compression = 0) =>
  rawFrame({ type: 2, compression, offset: BigInt(offset), length: BigInt(length), payload });

test('a stream made by hand from the text of docs/format.md is read', async () => {
  const { header, frames } = await decoded(
    rawStream(zero(0, 512), data(512, Buffer.alloc(512)), rawTrailer(2, 512, 512)),
  );
  assert.deepEqual(header, SAMPLE_HEADER);
  assert.equal(frames.length, 3);
});

test('arbitrary bytes end in a failure, never in an assertion or a hang', async () => {
  const known = [
    'DELTA_NOT_A_DELTA',
    'DELTA_NEWER',
    'DELTA_TRUNCATED',
    'DELTA_CORRUPT',
    'DELTA_INVALID',
    'DELTA_LIMIT',
  ];
  const noise = fc.uint8Array({ maxLength: 400 });
  const start = rawPreamble();
  const head = Buffer.concat([start, rawHeader()]);
  const frame = fc
    .record({
      type: fc.nat(6),
      compression: fc.nat(2),
      disk: fc.nat(3),
      offset: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      length: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      payload: fc.oneof(
        noise,
        fc.json().map((text) => Buffer.from(text)),
      ),
    })
    .map(rawFrame);
  const prefix = fc.constantFrom(Buffer.alloc(0), start, head);
  await fc.assert(
    fc.asyncProperty(prefix, fc.oneof(noise, frame), async (before, after) => {
      await refused(Buffer.concat([before, after]), ...known);
    }),
    { numRuns: 2000 },
  );
});

test('every flip of one bit is detected', async () => {
  for (const compression of ['none', { zstdLevel: 1 }] as const) {
    const good = await encoded(SAMPLE_HEADER, SAMPLE_PIECES, { compression });
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bytes = Buffer.from(good);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      await assert.rejects(decoded(bytes), (e) => isFailure(e), `bit ${bit}`);
    }
  }
});

test('a stream cut off at any byte is truncated, and only that', async () => {
  const good = await encoded();
  for (let length = 0; length < good.length; length++) {
    await assert.rejects(decoded(good.subarray(0, length), {}, [97]), (e) => {
      assert(isFailure(e, 'DELTA_TRUNCATED'), `cut at ${length}: ${e}`);
      return e.retry === 'reconnect';
    });
  }
});

test('a failure of the source is passed on as it is', async () => {
  const { decodeDelta } = await import('../../../src/delta/index.ts');
  const good = await encoded();
  async function* source() {
    yield* chunksOf(good.subarray(0, 700));
    throw new Error('connection reset');
  }
  await assert.rejects(async () => {
    const { frames } = await decodeDelta(source());
    for await (const _ of frames);
  }, /connection reset/);
});

test('frames that are doubled, exchanged or missing are refused', async () => {
  const [a, b, end] = [zero(0, 512), zero(1024, 512), rawTrailer(2, 0, 1024)];
  await decoded(rawStream(a, b, end));
  await refused(rawStream(a, a, b, end), 'DELTA_INVALID');
  await refused(rawStream(b, a, end), 'DELTA_INVALID');
  await refused(rawStream(a, end), 'DELTA_INVALID');
  await refused(rawStream(end), 'DELTA_INVALID');
  await refused(rawStream(a, b, end, end), 'DELTA_INVALID');
  await refused(rawStream(a, b, end, Buffer.alloc(1)), 'DELTA_INVALID');
  await refused(rawStream(rawHeader(), a, b, end), 'DELTA_INVALID');
  await refused(Buffer.concat([rawPreamble(), a, b, end]), 'DELTA_INVALID');
  await refused(rawStream(zero(0, 512, 1), zero(0, 512, 0), end), 'DELTA_INVALID');
});

test('trailers that count wrongly are refused', async () => {
  const a = zero(0, 512);
  const b = data(512, Buffer.alloc(512, 1));
  await decoded(rawStream(a, b, rawTrailer(2, 512, 512)));
  for (const [frames, dataBytes, zeroBytes] of [
    [1, 512, 512],
    [3, 512, 512],
    [2, 0, 512],
    [2, 512, 1024],
    [2, 512.5, 512],
    [2, 512, -512],
  ] as const) {
    await refused(rawStream(a, b, rawTrailer(frames, dataBytes, zeroBytes)), 'DELTA_INVALID');
  }
});

test('ranges that are empty, unaligned, overlapping, out of the disk or beyond 2^53 are refused', async () => {
  const cases: [string, Buffer[]][] = [
    ['empty zero frame', [zero(0, 0)]],
    ['empty data frame', [data(0, Buffer.alloc(0))]],
    ['offset not aligned', [zero(1, 511)]],
    ['end not aligned', [zero(0, 513)]],
    ['overlap', [zero(0, 1024), zero(512, 1024)]],
    ['end beyond the disk', [zero(1_048_064, 1024)]],
    ['unknown disk', [zero(0, 512, 2)]],
    ['offset of 2^53', [rawFrame({ type: 3, offset: 2n ** 53n, length: 512n })]],
    [
      'offset and length that sum above 2^53',
      [rawFrame({ type: 3, offset: 2n ** 53n - 512n, length: 2n ** 53n - 1n })],
    ],
    ['offset of 2^64 − 512', [rawFrame({ type: 3, offset: 2n ** 64n - 512n, length: 512n })]],
    ['zero frame that says it is compressed', [rawFrame({ type: 3, compression: 1, length: 512n })]],
    ['unknown compression', [data(0, Buffer.alloc(512), 512, 2)]],
    ['payload longer than the range', [data(0, Buffer.alloc(1024), 512)]],
    ['payload shorter than the range', [data(0, Buffer.alloc(512), 1024)]],
  ];
  for (const [what, frames] of cases) {
    await assert.rejects(decoded(rawStream(...frames)), (e) => isFailure(e, 'DELTA_INVALID'), what);
  }
  await refused(rawStream(rawFrame({ type: 3, length: 512n, payload: Buffer.alloc(1) })), 'DELTA_LIMIT');
  await refused(rawStream(rawFrame({ type: 9, payload: Buffer.alloc(1) })), 'DELTA_LIMIT');
  await refused(rawStream(rawFrame({ type: 0 })), 'DELTA_INVALID');
});

test('a compressed frame gives exactly its length and nothing can make it more', async () => {
  const text = Buffer.alloc(4096, 'text');
  const packed = zstdCompressSync(text);
  const good = await decoded(rawStream(data(0, packed, 4096, 1), rawTrailer(1, 4096, 0)));
  assert.deepEqual(good.frames[0], { type: 'data', number: 0, disk: 0, offset: 0, data: text });
  await refused(rawStream(data(0, packed, 3584, 1)), 'DELTA_INVALID');
  await refused(rawStream(data(0, packed, 4608, 1)), 'DELTA_INVALID');
  await refused(rawStream(data(0, Buffer.concat([packed, Buffer.from('x')]), 4096, 1)), 'DELTA_INVALID');
  const half = zstdCompressSync(text.subarray(0, 2048));
  await refused(rawStream(data(0, Buffer.concat([half, half]), 4096, 1)), 'DELTA_INVALID');
  await refused(rawStream(data(0, packed.subarray(0, -1), 4096, 1)), 'DELTA_INVALID');
  await refused(rawStream(data(0, Buffer.alloc(100, 7), 4096, 1)), 'DELTA_INVALID');
  const bomb = zstdCompressSync(Buffer.alloc(256 * 1024 * 1024));
  await refused(rawStream(data(0, bomb.subarray(0, 1_000), 1_048_576, 1)), 'DELTA_INVALID');
  await refused(rawStream(data(0, bomb, 1_048_576, 1)), 'DELTA_INVALID');
  await refused(rawStream(data(0, bomb, 256 * 1024 * 1024, 1)), 'DELTA_INVALID');
  // A frame header that asks for a window of 128 MiB: magic, descriptor without size, window log 27, one raw block.
  const greedy = Buffer.from('28b52ffd0088010000', 'hex');
  await refused(rawStream(data(0, greedy, 512, 1)), 'DELTA_INVALID');
});

test('lengths above the limits are refused before anything is read', async () => {
  for (const [type, limit] of [
    [1, 262_144],
    [2, 1_048_576],
    [4, 4_198_400],
  ] as const) {
    const head = rawFrame({ type, length: type === 2 ? 512n : 0n });
    head.writeUInt32BE(limit + 1, 4);
    await refused(type === 1 ? Buffer.concat([rawPreamble(), head]) : rawStream(head), 'DELTA_LIMIT');
    head.writeUInt32BE(limit, 4);
    await refused(type === 1 ? Buffer.concat([rawPreamble(), head]) : rawStream(head), 'DELTA_TRUNCATED');
  }
  await refused(rawStream(rawTrailer(0, 0, 0, 'x'.repeat(4 * 1024 * 1024))), 'DELTA_LIMIT');
  await decoded(rawStream(rawTrailer(0, 0, 0, 'x'.repeat(4 * 1024 * 1024 - 2))));
});

test('limits can be lowered by the caller', async () => {
  const bytes = rawStream(data(0, Buffer.alloc(1024, 1)), rawTrailer(1, 1024, 0));
  await decoded(bytes, { limits: { dataFrameBytes: 1024 } });
  await assert.rejects(decoded(bytes, { limits: { dataFrameBytes: 512 } }), (e) =>
    isFailure(e, 'DELTA_LIMIT'),
  );
  await assert.rejects(decoded(bytes, { limits: { headerBytes: 64 } }), (e) => isFailure(e, 'DELTA_LIMIT'));
});

test('a newer version is refused as such, and a damaged version number is not taken for one', async () => {
  await refused(Buffer.concat([rawPreamble(3), Buffer.from('whatever comes then')]), 'DELTA_NEWER');
  await refused(Buffer.concat([rawPreamble(0), rawHeader()]), 'DELTA_INVALID');
  const damaged = rawPreamble(1);
  damaged.writeUInt32BE(3, 8);
  await refused(Buffer.concat([damaged, rawHeader()]), 'DELTA_CORRUPT');
  await refused(Buffer.from('#!/bin/sh\necho this is no delta stream\n'), 'DELTA_NOT_A_DELTA');
});

test('headers that version 1 does not have are refused', async () => {
  const disk = { diskId: 'disk-0', sizeBytes: 512 };
  const changes: [string, Json][] = [
    ['session', ''],
    ['session', '../etc'],
    ['machineId', '.hidden'],
    ['pointId', 'a/b'],
    ['pointId', 'x'.repeat(129)],
    ['machineId', 'name\n'],
    ['sequence', -1],
    ['epoch', 1.5],
    ['firstFrame', 2 ** 60],
    ['parent', 'point-1'],
    ['parent', { pointId: 'point-1', statementDigest: 'AB'.repeat(32) }],
    ['parent', { pointId: 'point-1' }],
    ['disks', []],
    ['disks', {}],
    ['disks', [disk, disk]],
    ['disks', [{ ...disk, sizeBytes: 0 }]],
    ['disks', [{ ...disk, sizeBytes: 2 ** 51 }]],
    ['disks', [{ ...disk, path: '/dev/sda' }]],
    ['disks', Array.from({ length: 257 }, (_, i) => ({ ...disk, diskId: `d${i}` }))],
    ['blockBytes', 65_535],
    ['blockBytes', 2 ** 21],
    ['granularityBytes', 256],
    ['granularityBytes', 131_072],
    ['digest', 'md5'],
    ['more', 1],
  ];
  for (const [member, value] of changes) {
    const header = rawHeader({ ...SAMPLE_HEADER, [member]: value });
    const bytes = Buffer.concat([rawPreamble(), header, rawTrailer(0, 0, 0)]);
    await assert.rejects(
      decoded(bytes),
      (e) => isFailure(e, 'DELTA_INVALID'),
      `${member} ${JSON.stringify(value)}`,
    );
  }
  const { epoch: _, ...without } = SAMPLE_HEADER;
  await refused(Buffer.concat([rawPreamble(), rawHeader(without)]), 'DELTA_INVALID');
});

test('JSON has one spelling: any other text of the same value is refused', async () => {
  const trailer = (text: string | Buffer) => rawStream(rawFrame({ type: 4, payload: Buffer.from(text) }));
  const good = '{"dataBytes":0,"frames":0,"statement":null,"zeroBytes":0}';
  await decoded(trailer(good));
  for (const text of [
    ` ${good}`,
    `${good}\n`,
    `\ufeff${good}`,
    '{"frames":0,"dataBytes":0,"statement":null,"zeroBytes":0}',
    '{"dataBytes":0,"frames":0,"statement":1,"statement":null,"zeroBytes":0}',
    '{"dataBytes":-0,"frames":0,"statement":null,"zeroBytes":0}',
    '{"dataBytes":0,"frames":0,"statement":1e999,"zeroBytes":0}',
    '{"dataBytes":0,"frames":0,"statement":1.0,"zeroBytes":0}',
    '{"dataBytes":0,"frames":0,"statement":"\\u0061","zeroBytes":0}',
    `{"dataBytes":0,"frames":0,"statement":${'['.repeat(100_000)}${']'.repeat(100_000)},"zeroBytes":0}`,
    '[0]',
    'null',
    '',
  ]) {
    await refused(trailer(text), 'DELTA_INVALID');
  }
  await refused(
    trailer(Buffer.concat([Buffer.from(good.slice(0, -1)), Buffer.from([0xff, 0x7d])])),
    'DELTA_INVALID',
  );
});
