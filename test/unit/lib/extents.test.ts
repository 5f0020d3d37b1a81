/** The algebra of byte ranges, held against sets of numbers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  alignInward,
  alignOutward,
  differenceOf,
  type Extent,
  type Extents,
  extentsOf,
  intersectionOf,
  piecesOf,
  totalLength,
  unionOf,
} from '../../../src/lib/extents.ts';

const SIZE = 200;
const ranges = fc.array(fc.record({ offset: fc.nat(SIZE - 40), length: fc.nat(40) }), { maxLength: 12 });

function bytesOf(set: Iterable<Extent>): Set<number> {
  const bytes = new Set<number>();
  for (const { offset, length } of set) for (let at = offset; at < offset + length; at++) bytes.add(at);
  return bytes;
}

function assertNormal(set: Extents): void {
  for (const [index, extent] of set.entries()) {
    assert.ok(extent.length > 0);
    const before = set[index - 1];
    if (before) assert.ok(before.offset + before.length < extent.offset, 'ascending, and not even touching');
  }
}

function assertSame(set: Extents, expected: Set<number>): void {
  assertNormal(set);
  assert.deepEqual(
    [...bytesOf(set)],
    [...expected].sort((a, b) => a - b),
  );
  assert.equal(totalLength(set), expected.size);
}

test('any ranges have one normal form', () => {
  fc.assert(fc.property(ranges, (list) => assertSame(extentsOf(list), bytesOf(list))));
});

test('union, intersection and difference are those of sets', () => {
  fc.assert(
    fc.property(ranges, ranges, (left, right) => {
      const [a, b] = [extentsOf(left), extentsOf(right)];
      const [inA, inB] = [bytesOf(a), bytesOf(b)];
      assertSame(unionOf(a, b), inA.union(inB));
      assertSame(intersectionOf(a, b), inA.intersection(inB));
      assertSame(differenceOf(a, b), inA.difference(inB));
    }),
  );
});

test('aligning outward gives the blocks that are touched, inward the ones that are covered; the last may be short', () => {
  const block = 16;
  fc.assert(
    fc.property(ranges, fc.integer({ min: 1, max: SIZE }), (list, size) => {
      const inside = intersectionOf(extentsOf(list), [{ offset: 0, length: size }]);
      const bytes = bytesOf(inside);
      const touched = new Set<number>();
      const covered = new Set<number>();
      for (let from = 0; from < size; from += block) {
        const of = Array.from({ length: Math.min(block, size - from) }, (_, at) => from + at);
        if (of.some((byte) => bytes.has(byte))) for (const byte of of) touched.add(byte);
        if (of.every((byte) => bytes.has(byte))) for (const byte of of) covered.add(byte);
      }
      assertSame(alignOutward(inside, block, size), touched);
      assertSame(alignInward(inside, block, size), covered);
    }),
  );
});

test('pieces cover a set exactly and cross no border', () => {
  fc.assert(
    fc.property(ranges, fc.integer({ min: 1, max: 50 }), (list, pieceBytes) => {
      const set = extentsOf(list);
      const pieces = [...piecesOf(set, pieceBytes)];
      assert.deepEqual(extentsOf(pieces), set);
      for (const { offset, length } of pieces) {
        assert.equal(Math.floor(offset / pieceBytes), Math.floor((offset + length - 1) / pieceBytes));
      }
    }),
  );
});
