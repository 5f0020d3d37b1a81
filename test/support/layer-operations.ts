import fc from 'fast-check';
import type { LayerOperation } from '../../src/qcow2/index.ts';
import type { MappedExtent } from './qcow2-reader.ts';

/** Sequences of layer operations for property tests, what they contain, and what they must leave behind. */

const SUBCLUSTER = 4096;
const CLUSTER = 131_072;
const TABLE_SPAN = 2 ** 30;

/** A disk and the operations of one layer of it. */
export interface LayerCase {
  readonly sizeBytes: number;
  readonly seed: number;
  readonly operations: readonly LayerOperation[];
}

/** Sizes at which something ends within something: sector, sub-cluster, cluster, L2 table. */
export const SMALL_SIZES = [512, 4096, 4608, 131_072, 540_672, 2 ** 20 + 512, 3 * 2 ** 20] as const;
export const LARGE_SIZES = [2 ** 30, 2 ** 30 + 512, 2.5 * 2 ** 30, 5 * 2 ** 30 + 4096] as const;

/** Operations for a disk of one of `sizes`: most lie close to each other, some jump to a border of tables. */
export function layerCases(sizes: readonly number[], maximumOperations = 12): fc.Arbitrary<LayerCase> {
  return fc
    .record({
      sizeBytes: fc.constantFrom(...sizes),
      seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
      moves: movesUpTo(maximumOperations),
    })
    .map(({ sizeBytes, seed, moves }) => ({ sizeBytes, seed, operations: operationsOf(moves, sizeBytes) }));
}

/** Several layers for one disk, the lowest first. */
export function chainCases(
  sizes: readonly number[],
  layers: number,
): fc.Arbitrary<{ sizeBytes: number; layers: LayerCase[] }> {
  return fc
    .constantFrom(...sizes)
    .chain((sizeBytes) =>
      fc
        .array(layerCases([sizeBytes]), { minLength: layers, maxLength: layers })
        .map((cases) => ({ sizeBytes, layers: cases })),
    );
}

interface Move {
  readonly kind: 'data' | 'zero';
  readonly gap: number;
  readonly count: number;
  readonly toBorder: boolean;
}

function movesUpTo(maximumOperations: number): fc.Arbitrary<Move[]> {
  const short = fc.integer({ min: 0, max: 5 });
  const long = fc.integer({ min: 0, max: 70 });
  return fc.array(
    fc.record({
      kind: fc.constantFrom('data' as const, 'zero' as const),
      gap: fc.oneof(short, short, long),
      count: fc.oneof(short, short, long).map((count) => count + 1),
      toBorder: fc.integer({ min: 0, max: 5 }).map((chance) => chance === 0),
    }),
    { minLength: 0, maxLength: maximumOperations },
  );
}

function operationsOf(moves: readonly Move[], sizeBytes: number): LayerOperation[] {
  const operations: LayerOperation[] = [];
  let position = 0;
  for (const { kind, gap, count, toBorder } of moves) {
    let offset = position + gap * SUBCLUSTER;
    if (toBorder) {
      // Shortly before the next table or, on a small disk, before its end.
      const border = Math.min((Math.floor(offset / TABLE_SPAN) + 1) * TABLE_SPAN, sizeBytes);
      const before = Math.floor(border / SUBCLUSTER - (count >> 1)) * SUBCLUSTER;
      offset = Math.max(offset, before);
    }
    const end = Math.min(offset + count * SUBCLUSTER, sizeBytes);
    if (end <= offset) break;
    operations.push({ kind, offset, length: end - offset });
    position = Math.ceil(end / SUBCLUSTER) * SUBCLUSTER;
  }
  return operations;
}

/** The data of a case at a place: never zero, and different in every sub-cluster and for every seed. */
export function contentOf(seed: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) {
    const word = Math.imul(Math.floor((offset + at) / 512) ^ seed, 2_654_435_761) >>> 0;
    bytes[at] = ((word >>> ((at % 4) * 8)) & 0xff) | 1;
  }
  return bytes;
}

/** The map that a layer with these operations must have. */
export function mapOf(operations: readonly LayerOperation[]): MappedExtent[] {
  const extents: { offset: number; length: number; kind: 'data' | 'zero' }[] = [];
  for (const { kind, offset, length } of operations) {
    const last = extents.at(-1);
    if (last && last.kind === kind && last.offset + last.length === offset) last.length += length;
    else extents.push({ kind, offset, length });
  }
  return extents;
}

/** What `[offset, offset + length)` of a disk reads as through the layers, the lowest first, over zeroes. */
export function expectedContent(layers: readonly LayerCase[], offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (const { operations, seed } of layers) {
    for (const operation of operations) {
      const from = Math.max(offset, operation.offset);
      const to = Math.min(offset + length, operation.offset + operation.length);
      if (from >= to) continue;
      if (operation.kind === 'zero') bytes.fill(0, from - offset, to - offset);
      else contentOf(seed, from, to - from).copy(bytes, from - offset);
    }
  }
  return bytes;
}

/** Ranges worth reading back: around each operation, and both ends of the disk. */
export function interestingRanges(layers: readonly LayerCase[]): { offset: number; length: number }[] {
  const sizeBytes = layers[0]!.sizeBytes;
  const around = layers
    .flatMap((layer) => [...layer.operations])
    .map(({ offset, length }) => ({ start: offset - CLUSTER / 2, end: offset + length + CLUSTER / 2 }));
  return [...around, { start: 0, end: 5000 }, { start: sizeBytes - 5000, end: sizeBytes }].map(
    ({ start, end }) => {
      const offset = Math.max(0, start);
      return { offset, length: Math.min(sizeBytes, end) - offset };
    },
  );
}
