import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { throttled, type UploadChunk } from '../../../src/peer/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { code, pieces } from './sites.ts';

test('no limit passes chunks on untouched', async () => {
  const group: UploadChunk = [Buffer.alloc(3), Buffer.alloc(5)];
  async function* source(): AsyncGenerator<UploadChunk> {
    yield group;
  }
  const out: UploadChunk[] = [];
  for await (const chunk of throttled(source(), {
    bytesPerSecond: () => undefined,
    clock: new FakeClock(),
  })) {
    out.push(chunk);
  }
  assert.equal(out[0], group);
});

test('the rate holds over any length of time, and a new rate holds at once', async () => {
  const clock = new FakeClock();
  let rate: number | undefined = 100_000;
  let passed = 0;
  const done = (async () => {
    const limited = throttled(pieces(10, 1_000_000), { bytesPerSecond: () => rate, clock });
    for await (const chunk of limited) passed += (chunk as Buffer).length;
  })();
  await clock.turn(10_000);
  assert.ok(Math.abs(passed - 1_000_000) < 30_000, `${passed} in 10 s at 100 kB/s`);
  rate = 0;
  await clock.turn(60_000);
  const paused = passed;
  await clock.turn(60_000);
  assert.equal(passed, paused, 'a rate of 0 is a pause');
  rate = 1_000_000;
  await clock.turn(2_000);
  assert.ok(
    passed - paused < 2_300_000 && passed - paused > 1_500_000,
    `${passed - paused} in 2 s at 1 MB/s`,
  );
  rate = undefined;
  await clock.turn(1_000);
  await done;
  assert.equal(passed, 10_000_000);
  assert.equal(clock.pending, 0);
});

test('a throttled stream has the bytes of its source, in order', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 20_000 }), { maxLength: 8 }),
      fc.integer({ min: 1000, max: 5_000_000 }),
      async (buffers, rate) => {
        const clock = new FakeClock();
        async function* source(): AsyncGenerator<UploadChunk> {
          yield* buffers;
        }
        const out: Uint8Array[] = [];
        let over = false;
        const done = (async () => {
          for await (const chunk of throttled(source(), { bytesPerSecond: () => rate, clock })) {
            out.push(...(chunk instanceof Uint8Array ? [chunk] : chunk));
          }
          over = true;
        })();
        while (!over) await clock.turn(10_000);
        await done;
        assert.ok(Buffer.concat(out).equals(Buffer.concat(buffers)));
      },
    ),
    { numRuns: 30 },
  );
});

test('a pause can be cancelled', async () => {
  const controller = new AbortController();
  const limited = throttled(pieces(1, 10), {
    bytesPerSecond: () => 0,
    clock: new FakeClock(),
    signal: controller.signal,
  });
  const next = limited.next();
  setImmediate(() => controller.abort());
  await assert.rejects(next, code('CANCELLED'));
});
