import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  DeltaEncoder,
  type DeltaHeader,
  type DeltaPiece,
  decodeDelta,
  encodeDelta,
  NOTHING_RECEIVED,
  progressAfter,
} from '../../../src/delta/index.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import {
  allOf,
  chunksOf,
  decoded,
  encoded,
  framesOf,
  SAMPLE_HEADER,
  SAMPLE_PIECES,
  SAMPLE_STATEMENT,
} from './delta-samples.ts';

/** Any legal pieces over the sample's two disks. */
const pieces: fc.Arbitrary<DeltaPiece[]> = fc
  .array(
    fc.record({
      gap: fc.nat(3),
      sectors: fc.integer({ min: 1, max: 40 }),
      kind: fc.constantFrom('random', 'text', 'zero'),
      next: fc.boolean(),
    }),
    { maxLength: 12 },
  )
  .map((steps) => {
    const made: DeltaPiece[] = [];
    let disk = 0;
    let at = 0;
    for (const { gap, sectors, kind, next } of steps) {
      if (next && disk === 0) [disk, at] = [1, 0];
      const offset = at + gap * 512;
      const length = Math.min(sectors * 512, SAMPLE_HEADER.disks[disk]!.sizeBytes - offset);
      if (length <= 0) break;
      at = offset + length;
      if (kind === 'zero') made.push({ type: 'zero', disk, offset, length });
      else {
        const data = kind === 'random' ? systemRandom.bytes(length) : Buffer.alloc(length, 'some text ');
        made.push({ type: 'data', disk, offset, data });
      }
    }
    return made;
  });
const lengths = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 8 });

test('what goes in comes out, whatever the extents, the compression and the chunks', async () => {
  await fc.assert(
    fc.asyncProperty(pieces, lengths, fc.constantFrom(null, -3, 1, 3), async (given, cuts, level) => {
      const compression = level === null ? 'none' : { zstdLevel: level };
      const bytes = await encoded(SAMPLE_HEADER, given, { compression });
      const { header, frames } = await decoded(bytes, {}, cuts);
      assert.deepEqual(header, SAMPLE_HEADER);
      const last = frames.pop();
      assert.deepEqual(frames, framesOf(given));
      const sum = (type: 'data' | 'zero') =>
        frames.reduce(
          (n, f) =>
            n + (f.type !== type ? 0 : f.type === 'data' ? f.data.length : f.type === 'zero' ? f.length : 0),
          0,
        );
      assert.deepEqual(last, {
        type: 'trailer',
        trailer: {
          frames: given.length,
          dataBytes: sum('data'),
          zeroBytes: sum('zero'),
          statement: SAMPLE_STATEMENT,
        },
      });
    }),
    { numRuns: 150 },
  );
});

test('a resumed stream completes a delta and meets the same rules', async () => {
  for (let cut = 0; cut <= SAMPLE_PIECES.length; cut++) {
    const whole = await decoded(await encoded());
    const received = whole.frames.slice(0, cut).reduce((progress, frame) => {
      assert(frame.type !== 'trailer');
      const length = frame.type === 'data' ? frame.data.length : frame.length;
      return progressAfter(progress, { type: frame.type, disk: frame.disk, offset: frame.offset, length });
    }, NOTHING_RECEIVED);
    const header: DeltaHeader = { ...SAMPLE_HEADER, firstFrame: cut };
    const rest = await encoded(header, SAMPLE_PIECES.slice(cut), { compression: 'none', resumed: received });
    const { frames } = await decoded(rest, { received: () => received });
    assert.deepEqual(frames, whole.frames.slice(cut));
    if (cut === 0) continue;
    await assert.rejects(decoded(rest), (e) => isFailure(e, 'DELTA_RESUME_MISMATCH'));
    await assert.rejects(
      decoded(rest, { received: { ...received, dataBytes: received.dataBytes + 512 } }),
      (e) => isFailure(e, 'DELTA_INVALID'),
      'the sums of the trailer count what was there before',
    );
    if (cut === SAMPLE_PIECES.length) continue;
    await assert.rejects(
      decoded(rest, { received: { ...received, disk: 1, endOffset: 9728 } }),
      (e) => isFailure(e, 'DELTA_INVALID'),
      'the order goes on where it was',
    );
  }
});

test('uncompressed data is copied neither by the encoder nor by the decoder', async () => {
  const data = systemRandom.bytes(4096);
  const encoder = new DeltaEncoder({ compression: 'none' });
  encoder.preamble(SAMPLE_HEADER);
  const [, payload] = await encoder.data(0, 0, data);
  assert.equal(payload!.buffer, data.buffer);
  const bytes = await encoded(SAMPLE_HEADER, [{ type: 'data', disk: 0, offset: 0, data }]);
  const { frames } = await decodeDelta(
    (async function* () {
      yield bytes;
    })(),
  );
  const { value } = await frames.next();
  assert(value?.type === 'data');
  assert.equal(value.data.buffer, bytes.buffer);
  await frames.return(undefined);
});

test('compression is used where it helps and left out where it does not', async () => {
  const encoder = new DeltaEncoder({ compression: { zstdLevel: 1 } });
  encoder.preamble(SAMPLE_HEADER);
  const text = await encoder.data(0, 0, Buffer.alloc(65_536, 'compressible '));
  assert.equal(text[0]!.readUInt8(1), 1);
  assert(text[1]!.length < 1000);
  const noise = systemRandom.bytes(65_536);
  const plain = await encoder.data(0, 65_536, noise);
  assert.equal(plain[0]!.readUInt8(1), 0);
  assert.equal(plain[1]!.buffer, noise.buffer);
  const tiny = await encoder.data(1, 9728, Buffer.from('end of the disk'.padEnd(272, '!')));
  assert.equal(tiny[1]!.length < 272, tiny[0]!.readUInt8(1) === 1);
});

test('the source is read only as fast as the frames are', async () => {
  const big = systemRandom.bytes(512);
  const many: DeltaPiece[] = Array.from({ length: 1000 }, (_, i) => ({
    type: 'data',
    disk: 0,
    offset: i * 512,
    data: big,
  }));
  const bytes = await encoded(SAMPLE_HEADER, many);
  let given = 0;
  async function* source() {
    for await (const chunk of chunksOf(bytes, [540])) {
      given += chunk.length;
      yield chunk;
    }
  }
  const { frames } = await decodeDelta(source());
  for (let i = 0; i < 10; i++) await frames.next();
  assert(given < 16 + 1500 + 12 * 540, `${given} bytes were read for 10 frames`);
  await frames.return(undefined);
});

test('the encoder pulls at most four pieces ahead and passes the failure of its source on', async () => {
  let pulled = 0;
  async function* source(): AsyncGenerator<DeltaPiece> {
    for (; pulled < 100; pulled++)
      yield { type: 'data', disk: 0, offset: pulled * 512, data: Buffer.alloc(512, 'a') };
    throw new Error('the disk is away');
  }
  const stream = encodeDelta(SAMPLE_HEADER, source(), () => null, { compression: { zstdLevel: 1 } });
  for (let i = 0; i < 4; i++) await stream.next();
  assert(pulled <= 4, `${pulled} pieces`);
  await assert.rejects(async () => {
    for await (const _ of stream);
  }, /the disk is away/);
});

test('a source may use the memory of a piece again when the next one is asked for', async () => {
  const random = systemRandom.bytes(512);
  const contents = Array.from({ length: 40 }, (_, i) => (i % 2 ? Buffer.alloc(4096, i) : random));
  async function* source(): AsyncGenerator<DeltaPiece> {
    const memory = Buffer.alloc(4096);
    for (const [i, content] of contents.entries()) {
      content.copy(memory);
      yield { type: 'data', disk: 0, offset: i * 4096, data: memory.subarray(0, content.length) };
      memory.fill(0xee);
    }
  }
  const header = { ...SAMPLE_HEADER, disks: [{ diskId: 'disk0', sizeBytes: 1_048_576 }] };
  for (const compression of ['none', { zstdLevel: 1 }] as const) {
    const wire: Buffer[] = [];
    for await (const buffer of encodeDelta(header, source(), () => null, { compression }))
      wire.push(Buffer.from(buffer));
    const { frames } = await decoded(Buffer.concat(wire));
    const data = frames.flatMap((frame) => (frame.type === 'data' ? [Buffer.from(frame.data)] : []));
    assert(Buffer.concat(data).equals(Buffer.concat(contents)));
  }
});

test('a cancelled decoder ends at once, even while it waits for bytes', async () => {
  const bytes = await encoded();
  const controller = new AbortController();
  let endSource: () => void = () => undefined;
  const silence = new Promise<void>((resolve) => {
    endSource = resolve;
  });
  async function* source() {
    yield bytes.subarray(0, bytes.length - 10);
    await silence;
  }
  const { frames } = await decodeDelta(source(), { signal: controller.signal });
  const all = allOf(frames);
  controller.abort();
  await assert.rejects(all, (e) => isFailure(e, 'CANCELLED'));
  endSource();
});

test('a source is let go after the last frame, after a failure and when frames are left early', async () => {
  const good = await encoded();
  const read = async (bytes: Buffer, framesMax: number) => {
    let released = false;
    async function* source() {
      try {
        yield* chunksOf(bytes, [100]);
      } finally {
        released = true;
      }
    }
    try {
      const { frames } = await decodeDelta(source());
      for await (const _ of frames) if (--framesMax === 0) break;
    } catch (error) {
      assert(isFailure(error));
    }
    return released;
  };
  assert(await read(good, 99));
  assert(await read(good, 1));
  assert(await read(Buffer.concat([good, good]), 99));
  assert(await read(Buffer.alloc(500), 99));
});

test('the encoder meets wrong calls with assertions', async () => {
  const encoder = new DeltaEncoder({ compression: 'none' });
  assert.throws(() => encoder.zero(0, 0, 512), /between header and trailer/);
  encoder.preamble(SAMPLE_HEADER);
  encoder.zero(0, 512, 512);
  assert.throws(() => encoder.zero(0, 512, 512), /where the last range ended/);
  assert.throws(() => encoder.zero(0, 1025, 511), /not aligned/);
  await assert.rejects(encoder.data(1, 9728, Buffer.alloc(512)), /beyond the disk/);
  assert.throws(
    () => encoder.trailer({ frames: 2, dataBytes: 0, zeroBytes: 512, statement: null }),
    /frames says 2/,
  );
  assert.throws(
    () =>
      encoder.trailer({ frames: 1, dataBytes: 0, zeroBytes: 512, statement: 'x'.repeat(4 * 1024 * 1024) }),
    (e) => isFailure(e, 'DELTA_LIMIT'),
  );
});
