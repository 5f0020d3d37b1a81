/** Reading ahead: what is yielded is what lies there, however late and out of order the reads end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ImageReader } from '../../../src/hypervisor/index.ts';
import { extentsOf, piecesOf } from '../../../src/lib/extents.ts';
import { readAhead } from '../../../src/replica/index.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE_BYTES = 64 * MIB;
const MEMORY_BYTES = 4 * MIB;

/** A disk of which each 4 KiB hold their number. A read ends after as many turns as `delays` says, and writes only then. */
class NumberedDisk implements ImageReader {
  readonly sizeBytes = SIZE_BYTES;
  underWayBytes = 0;
  mostBytes = 0;
  mostReads = 0;
  failsAt: number | undefined;
  #reads = 0;
  readonly #delays: readonly number[];

  constructor(delays: readonly number[]) {
    this.#delays = delays;
  }

  async readInto(target: Uint8Array, offset: number): Promise<void> {
    const turns = this.#delays[this.#reads++ % this.#delays.length] ?? 0;
    this.underWayBytes += target.length;
    this.mostBytes = Math.max(this.mostBytes, this.underWayBytes);
    this.mostReads = Math.max(this.mostReads, Math.round(this.underWayBytes / target.length));
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    this.underWayBytes -= target.length;
    if (offset === this.failsAt) throw new Error('the disk does not read here');
    Buffer.from(target.buffer, target.byteOffset, target.length).set(numbered(offset, target.length));
  }

  ownExtents(): never {
    throw new Error('not asked for here');
  }

  contentExtents(): never {
    throw new Error('not asked for here');
  }

  async close(): Promise<void> {
    assert.equal(this.underWayBytes, 0, 'closed with reads under way');
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function numbered(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4 * KIB) bytes.fill((offset + at) / (4 * KIB) + 1, at, at + 4 * KIB);
  return bytes;
}

const pages = SIZE_BYTES / (4 * KIB);
const someExtents = fc
  .array(fc.record({ page: fc.nat(pages - 300), count: fc.integer({ min: 1, max: 300 }) }), { maxLength: 30 })
  .map((list) => extentsOf(list.map(({ page, count }) => ({ offset: page * 4096, length: count * 4096 }))));

test('pieces come in order and as they lie there, within the memory that is promised', async () => {
  const delays = fc.array(fc.nat(5), { minLength: 1, maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(someExtents, delays, async (extents, turns) => {
      const disk = new NumberedDisk(turns);
      const wanted = [...piecesOf(extents, MIB)];
      for await (const { piece, data } of readAhead(disk, [...wanted])) {
        assert.deepEqual(piece, wanted.shift());
        // While it is looked at others are being read, and must not touch it.
        await Promise.resolve();
        assert.ok(data.equals(numbered(piece.offset, piece.length)), `the piece at ${piece.offset}`);
      }
      assert.equal(wanted.length, 0);
      assert.ok(disk.mostBytes <= MEMORY_BYTES);
    }),
    { numRuns: 30 },
  );
});

test('a few small pieces take no more memory than they have bytes', async () => {
  const disk = new NumberedDisk([1]);
  const few = [1, 7, 40].map((page) => ({ offset: page * MIB, length: 64 * KIB }));
  for await (const { data } of readAhead(disk, few)) assert.equal(data.buffer.byteLength, 3 * 64 * KIB);
});

test('small pieces are read many at once', async () => {
  const disk = new NumberedDisk([3]);
  const scattered = Array.from({ length: 100 }, (_, i) => ({ offset: i * MIB, length: 64 * KIB }));
  let count = 0;
  for await (const _piece of readAhead(disk, scattered.slice(0, 64))) count += 1;
  assert.equal(count, 64);
  assert.equal(disk.mostReads, 32);
});

test('a read that fails ends it, after those before and not before the others have settled', async () => {
  const disk = new NumberedDisk([4, 0, 2]);
  disk.failsAt = 2 * MIB;
  const seen: number[] = [];
  const reading = (async () => {
    for await (const { piece } of readAhead(disk, piecesOf([{ offset: 0, length: 6 * MIB }], MIB))) {
      seen.push(piece.offset);
    }
  })();
  await assert.rejects(reading, /does not read here/);
  assert.deepEqual(seen, [0, MIB]);
  await disk.close();
});
