import { assert } from './assert.ts';

/** A range of bytes: `[offset, offset + length)`. Length is never 0 inside an `Extents`. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** Extents in ascending order that neither overlap nor touch: the one normal form of a set of bytes. */
export type Extents = readonly Extent[];

export const NO_EXTENTS: Extents = [];

export function endOf(extent: Extent): number {
  return extent.offset + extent.length;
}

/** The normal form of any ranges in any order; empty ones vanish, touching and overlapping ones unite. */
export function extentsOf(ranges: readonly Extent[]): Extents {
  const sorted = ranges.filter((range) => range.length > 0).sort((a, b) => a.offset - b.offset);
  const result: { offset: number; length: number }[] = [];
  for (const { offset, length } of sorted) {
    assert(offset >= 0 && Number.isSafeInteger(offset + length), `extent out of range: ${offset}+${length}`);
    const last = result.at(-1);
    if (last && offset <= last.offset + last.length) {
      last.length = Math.max(last.length, offset + length - last.offset);
    } else {
      result.push({ offset, length });
    }
  }
  return result;
}

export function unionOf(...sets: readonly Extents[]): Extents {
  return extentsOf(sets.flat());
}

/** Quick also where one set is a small window upon the other: what lies before both begin is passed over. */
export function intersectionOf(a: Extents, b: Extents): Extents {
  const result: Extent[] = [];
  let i = b[0] ? firstEndingAfter(a, b[0].offset) : a.length;
  let j = a[i] ? firstEndingAfter(b, a[i]!.offset) : b.length;
  while (i < a.length && j < b.length) {
    const left = a[i]!;
    const right = b[j]!;
    const offset = Math.max(left.offset, right.offset);
    const end = Math.min(endOf(left), endOf(right));
    if (offset < end) result.push({ offset, length: end - offset });
    if (endOf(left) < endOf(right)) i++;
    else j++;
  }
  return result;
}

/** The index of the first extent that ends behind `offset`; the number of extents if none does. */
function firstEndingAfter(set: Extents, offset: number): number {
  let [low, high] = [0, set.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (endOf(set[middle]!) > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** What is in `a` and not in `b`. */
export function differenceOf(a: Extents, b: Extents): Extents {
  const result: Extent[] = [];
  let j = 0;
  for (const extent of a) {
    let offset = extent.offset;
    const end = endOf(extent);
    while (j < b.length && endOf(b[j]!) <= offset) j++;
    for (let k = j; k < b.length && b[k]!.offset < end; k++) {
      if (b[k]!.offset > offset) result.push({ offset, length: b[k]!.offset - offset });
      offset = Math.max(offset, endOf(b[k]!));
    }
    if (offset < end) result.push({ offset, length: end - offset });
  }
  return result;
}

/** The smallest set of whole blocks that covers `set`, cut off at `sizeBytes` (the last block may be short). */
export function alignOutward(set: Extents, blockBytes: number, sizeBytes: number): Extents {
  return extentsOf(
    set.map((extent) => {
      const offset = Math.floor(extent.offset / blockBytes) * blockBytes;
      const end = Math.min(Math.ceil(endOf(extent) / blockBytes) * blockBytes, sizeBytes);
      return { offset, length: Math.max(0, end - offset) };
    }),
  );
}

/** The whole blocks that lie inside `set`; the last block may be short and then ends at `sizeBytes`. */
export function alignInward(set: Extents, blockBytes: number, sizeBytes: number): Extents {
  return extentsOf(
    set.map((extent) => {
      const offset = Math.ceil(extent.offset / blockBytes) * blockBytes;
      const end =
        endOf(extent) >= sizeBytes ? sizeBytes : Math.floor(endOf(extent) / blockBytes) * blockBytes;
      return { offset, length: Math.max(0, end - offset) };
    }),
  );
}

export function totalLength(set: Extents): number {
  return set.reduce((sum, extent) => sum + extent.length, 0);
}

/** Cuts extents into pieces of at most `pieceBytes` whose borders lie on multiples of `pieceBytes`. */
export function* piecesOf(set: Iterable<Extent>, pieceBytes: number): Generator<Extent> {
  for (const extent of set) {
    const end = endOf(extent);
    for (let offset = extent.offset; offset < end; ) {
      const border = (Math.floor(offset / pieceBytes) + 1) * pieceBytes;
      const length = Math.min(border, end) - offset;
      yield { offset, length };
      offset += length;
    }
  }
}
