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
 * The pieces of one disk's delta in ascending order, the same ones whenever the same cut is read. Every block that a piece
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
      if (!delta.complete) yield { type: 'zero', disk, ...nextZero.value };
    }
  }
  for await (const { piece, data } of readAhead(
    reader,
    piecesOf(toRead, PIECE_BYTES),
    signal ? { signal } : {},
  )) {
    yield* zerosBefore(piece.offset);
    const foundZero: Extent[] = [];
    for (let at = 0; at < data.length; at += blockBytes) {
      const block = data.subarray(at, Math.min(at + blockBytes, data.length));
      const index = (piece.offset + at) / blockBytes;
      if (isAllZero(block)) {
        foundZero.push({ offset: piece.offset + at, length: block.length });
        tree.set(index, zeroBlockDigest(block.length));
      } else {
        tree.set(index, blockDigest(block));
      }
    }
    yield* framesOf(delta, piece, data, extentsOf(foundZero));
  }
  yield* zerosBefore(Number.POSITIVE_INFINITY);
}

/** What of one piece that was read goes into the stream: changed ranges only, blocks found to be zero as zeros. */
function* framesOf(
  delta: DiskDelta,
  piece: Extent,
  bytes: Buffer,
  foundZero: Extents,
): Generator<DeltaPiece> {
  const here: Extents = [piece];
  const changedData = intersectionOf(delta.data, here);
  const zero = unionOf(intersectionOf(delta.zero, here), intersectionOf(changedData, foundZero));
  const data = differenceOf(changedData, foundZero);
  const ranges = [
    ...data.map((extent) => ({ extent, isZero: false })),
    ...(delta.complete ? NO_EXTENTS : zero).map((extent) => ({ extent, isZero: true })),
  ].sort((a, b) => a.extent.offset - b.extent.offset);
  for (const { extent, isZero } of ranges) {
    if (isZero) {
      yield { type: 'zero', disk: delta.diskIndex, ...extent };
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
