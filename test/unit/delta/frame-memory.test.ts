import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeDelta } from '../../../src/delta/index.ts';
import { chunksOf, encoded, framesOf, SAMPLE_PIECES } from './delta-samples.ts';

const MIB = 1024 * 1024;

test('data that comes in several chunks is put together in the memory that the caller gives', async () => {
  const bytes = await encoded();
  const memory = Buffer.alloc(MIB);
  const { frames } = await decodeDelta(chunksOf(bytes, [100]), { memory });
  const seen: unknown[] = [];
  for await (const frame of frames) {
    if (frame.type === 'data') {
      assert.equal(frame.data.buffer, memory.buffer);
      assert.equal(frame.data.byteOffset, memory.byteOffset);
      seen.push({ ...frame, data: Buffer.from(frame.data) });
    } else if (frame.type === 'zero') seen.push(frame);
  }
  assert.deepEqual(seen, framesOf(SAMPLE_PIECES));
});

test('memory that could not hold any frame is refused before a byte is read', async () => {
  await assert.rejects(decodeDelta(chunksOf(Buffer.alloc(0)), { memory: Buffer.alloc(MIB - 1) }), {
    name: 'AssertionError',
  });
});
