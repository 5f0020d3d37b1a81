import {
  BLOCK_BYTES_DEFAULT,
  blockDigest,
  blockLength,
  type DeltaPiece,
  DigestTree,
  isAllZero,
  zeroBlockDigest,
} from '../delta/index.ts';
import type { ContentExtents, ImageReader } from '../hypervisor/index.ts';
import {
  alignInward,
  alignOutward,
  differenceOf,
  type Extent,
  type Extents,
  endOf,
  extentsOf,
  intersectionOf,
  NO_EXTENTS,
  piecesOf,
  unionOf,
} from '../lib/extents.ts';
import { digestsOf, readAhead } from '../replica/index.ts';
import type { OlderLeaves } from './older-leaves.ts';

/** Changes are tracked in sub-clusters of the overlays; see the qcow2 folder. */
export const GRANULARITY_BYTES = 4096;
const PIECE_BYTES = 1024 * 1024;

/** One disk of a cut, opened, with what changed on it. */
export interface DiskDelta {
  readonly diskIndex: number;
  readonly reader: ImageReader;
  /** What is sent as bytes and what as zeros, on the granularity. */
  readonly data: Extents;
  readonly zero: Extents;
  /** Takes the digests of all blocks that changed; holds those of the parent before. */
  readonly tree: DigestTree;
  /** The delta is complete by itself: what it does not mention is zero. */
  readonly complete: boolean;
  /** The target has everything before this offset. */
  readonly from: number;
  /** Of a complete delta: what an older copy at the target has. */
  readonly older?: OlderLeaves | undefined;
}

/** A block that the target takes from its older copy. */
interface SameBlock extends Extent {
  readonly digest: Buffer;
}

/** Puts what a reader says changed onto the granularity of the stream; what is zero only in part is sent as bytes. */
export function onGranularity(
  changed: ContentExtents,
  sizeBytes: number,
  granularityBytes = GRANULARITY_BYTES,
): ContentExtents {
  const zero = alignInward(changed.zero, granularityBytes, sizeBytes);
  const rest = differenceOf(unionOf(changed.data, changed.zero), zero);
  const data = alignOutward(rest, granularityBytes, sizeBytes);
  return { data, zero: differenceOf(zero, data) };
}

/**
 * The pieces of one disk's delta in ascending order, from `from` on. The same cut gives the same ones, unless an older copy has come or
 * gone, and even then each byte comes once. Every block that a piece
 * touches is read whole through the chain, once, and its digest goes into the tree; blocks that are zero as a whole are
 * not read. The bytes of a piece are valid until the next one is asked for: a few buffers serve the whole disk.
 */
export async function* piecesOfDisk(delta: DiskDelta, signal?: AbortSignal): AsyncGenerator<DeltaPiece> {
  const { tree, reader, diskIndex: disk } = delta;
  const { blockBytes, sizeBytes } = tree;
  const zeroBlocks = alignInward(delta.zero, blockBytes, sizeBytes);
  const touched = alignOutward(unionOf(delta.data, delta.zero), blockBytes, sizeBytes);
  const toRead = differenceOf(touched, zeroBlocks);
  const zeros = zeroBlocks[Symbol.iterator]();
  let nextZero = zeros.next();
  function* zerosBefore(offset: number): Generator<DeltaPiece> {
    for (; !nextZero.done && nextZero.value.offset < offset; nextZero = zeros.next()) {
      setZero(tree, nextZero.value);
      const due = delta.complete ? undefined : behind({ type: 'zero', disk, ...nextZero.value }, delta.from);
      if (due) yield due;
    }
  }
  for await (const { piece, data } of readAhead(
    reader,
    piecesOf(toRead, PIECE_BYTES),
    signal ? { signal } : {},
  )) {
    yield* zerosBefore(piece.offset);
    const foundZero: Extent[] = [];
    const same: SameBlock[] = [];
    const isWanted = endOf(piece) > delta.from;
    const isThere = isWanted ? await delta.older?.of(piece) : undefined;
    for (let at = 0; at < data.length; at += blockBytes) {
      const block = data.subarray(at, Math.min(at + blockBytes, data.length));
      const here = { offset: piece.offset + at, length: block.length };
      const index = here.offset / blockBytes;
      if (isAllZero(block)) {
        foundZero.push(here);
        tree.set(index, zeroBlockDigest(block.length));
      } else {
        const digest = blockDigest(block);
        tree.set(index, digest);
        if (here.offset >= delta.from && isThere?.(index, digest)) same.push({ ...here, digest });
      }
    }
    for (const framed of framesOf(delta, piece, data, extentsOf(foundZero), same)) {
      const due = behind(framed, delta.from);
      if (due) yield due;
    }
  }
  yield* zerosBefore(Number.POSITIVE_INFINITY);
}

/** What of a piece lies at or behind an offset. An older copy is asked of nothing before it. */
function behind(piece: DeltaPiece, from: number): DeltaPiece | undefined {
  const { offset } = piece;
  const length = piece.type === 'data' ? piece.data.length : piece.length;
  if (offset >= from) return piece;
  if (offset + length <= from || piece.type === 'same') return undefined;
  const passed = from - offset;
  return piece.type === 'data'
    ? { ...piece, offset: from, data: piece.data.subarray(passed) }
    : { ...piece, offset: from, length: length - passed };
}

/** What of one piece that was read goes into the stream: changed ranges only, blocks found to be zero as zeros. */
function* framesOf(
  delta: DiskDelta,
  piece: Extent,
  bytes: Buffer,
  foundZero: Extents,
  same: readonly SameBlock[],
): Generator<DeltaPiece> {
  const here: Extents = [piece];
  const changedData = intersectionOf(delta.data, here);
  const zero = unionOf(intersectionOf(delta.zero, here), intersectionOf(changedData, foundZero));
  const older = extentsOf(same);
  const data = differenceOf(differenceOf(changedData, foundZero), older);
  const ranges = [
    ...data.map((extent) => ({ extent, type: 'data' as const })),
    ...(delta.complete ? NO_EXTENTS : zero).map((extent) => ({ extent, type: 'zero' as const })),
    ...older.map((extent) => ({ extent, type: 'same' as const })),
  ].sort((a, b) => a.extent.offset - b.extent.offset);
  for (const { extent, type } of ranges) {
    if (type === 'zero') {
      yield { type, disk: delta.diskIndex, ...extent };
    } else if (type === 'same') {
      const inside = same.filter(({ offset }) => offset >= extent.offset && offset < endOf(extent));
      const leaves = Buffer.concat(inside.map(({ digest }) => digest));
      yield { type, disk: delta.diskIndex, ...extent, leaves };
    } else {
      const from = extent.offset - piece.offset;
      const part = bytes.subarray(from, from + extent.length);
      yield { type: 'data', disk: delta.diskIndex, offset: extent.offset, data: part };
    }
  }
}

function setZero(tree: DigestTree, extent: Extent): void {
  const { blockBytes, sizeBytes } = tree;
  const end = Math.ceil(endOf(extent) / blockBytes);
  for (let index = extent.offset / blockBytes; index < end; index++) {
    tree.set(index, zeroBlockDigest(blockLength(sizeBytes, blockBytes, index)));
  }
}

/** The tree of what a chain reads as, computed from nothing by reading all of it that is not known to be zero. */
export async function rebuildTree(reader: ImageReader, signal?: AbortSignal): Promise<DigestTree> {
  const tree = new DigestTree({ sizeBytes: reader.sizeBytes, blockBytes: BLOCK_BYTES_DEFAULT });
  const { data } = await reader.contentExtents();
  for await (const { index, digest } of digestsOf(reader, data, BLOCK_BYTES_DEFAULT, signal))
    tree.set(index, digest);
  return tree;
}
