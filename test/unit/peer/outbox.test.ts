import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Outbox } from '../../../src/peer/outbox.ts';

const MIB = 1024 * 1024;

/** A connection that takes what it was given when it is told to, and remembers how it looked when it came. */
class Line {
  readonly got: Buffer[] = [];
  writes = 0;
  #pending: { bytes: Buffer; copy: Buffer; taken: () => void } | undefined;

  readonly passOn = (bytes: Buffer, taken: () => void): void => {
    assert(this.#pending === undefined, 'one write at a time');
    this.writes += 1;
    this.#pending = { bytes, copy: Buffer.from(bytes), taken };
  };

  take(): void {
    const pending = this.#pending;
    if (!pending) return;
    this.#pending = undefined;
    assert(pending.bytes.equals(pending.copy), 'nobody writes to a buffer that the connection has');
    this.got.push(pending.copy);
    // What is free may be written to from here on.
    pending.taken();
  }
}

test('bytes leave in order and unchanged while the connection has them, whenever it takes them', () => {
  const step = fc.record({
    bytes: fc.oneof(
      fc.integer({ min: 0, max: 100 }),
      fc.integer({ min: MIB - 2, max: MIB + 2 }),
      fc.integer({ min: 0, max: 3 * MIB }),
    ),
    takes: fc.nat({ max: 2 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const line = new Line();
      const outbox = new Outbox(line.passOn);
      const put: Buffer[] = [];
      for (const [i, { bytes, takes }] of steps.entries()) {
        const chunk = Buffer.alloc(bytes, i + 1);
        put.push(Buffer.from(chunk));
        for (let at = 0; at < bytes; ) {
          const count = outbox.put(chunk.subarray(at));
          if (count === 0) line.take();
          at += count;
        }
        outbox.send();
        chunk.fill(0xee);
        for (let k = 0; k < takes; k++) line.take();
      }
      for (let k = 0; k < 3; k++) line.take();
      assert(outbox.isEmpty);
      assert(Buffer.concat(line.got).equals(Buffer.concat(put)));
    }),
    { numRuns: 40 },
  );
});

test('an idle connection gets the first byte at once, a busy one all that came meanwhile in one write', async () => {
  const line = new Line();
  const outbox = new Outbox(line.passOn);
  for (let i = 0; i < 1000; i++) {
    assert.equal(outbox.put(Buffer.alloc(100, i)), 100);
    outbox.send();
  }
  assert.equal(line.writes, 1);
  const taken = outbox.taken();
  line.take();
  await taken;
  assert.equal(line.writes, 2);
  line.take();
  assert(outbox.isEmpty);
  assert.deepEqual(
    line.got.map((bytes) => bytes.length),
    [100, 99_900],
  );
});

test('what has no room is not taken', () => {
  const line = new Line();
  const outbox = new Outbox(line.passOn);
  const chunk = Buffer.alloc(3 * MIB);
  assert.equal(outbox.put(chunk), MIB);
  assert.equal(outbox.put(chunk), MIB);
  assert.equal(outbox.put(chunk), 0);
  line.take();
  assert.equal(outbox.put(chunk), MIB);
});
