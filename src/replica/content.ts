import { blockDigest, type DigestTree } from '../delta/index.ts';
import type { ImageReader } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { alignOutward, type Extent, type Extents, extentsOf, piecesOf } from '../lib/extents.ts';

/** Read in pieces of this size, a few at once: large enough for speed, small enough for memory. */
const READ_BYTES = 1024 * 1024;
const READS_AT_ONCE = 4;

export interface BlockLeaf {
  readonly index: number;
  readonly digest: Buffer;
}

/**
 * Digests of all blocks that touch `ranges`, read through `reader`, in ascending order. Blocks are read whole,
 * whatever part of them is in `ranges`.
 */
export async function* digestsOf(
  reader: ImageReader,
  ranges: Extents,
  blockBytes: number,
  signal?: AbortSignal,
): AsyncGenerator<BlockLeaf> {
  const aligned = alignOutward(ranges, blockBytes, reader.sizeBytes);
  for await (const { piece, data } of readAhead(
    reader,
    piecesOf(aligned, READ_BYTES),
    signal ? { signal } : {},
  )) {
    for (let at = 0; at < data.length; at += blockBytes) {
      const block = data.subarray(at, Math.min(at + blockBytes, data.length));
      yield { index: (piece.offset + at) / blockBytes, digest: blockDigest(block) };
    }
  }
}

/**
 * Reads pieces of at most 1 MiB in order, the next ones already under way while one is looked at. What is yielded is
 * valid until the next one is asked for.
 */
export async function* readAhead(
  reader: ImageReader,
  pieces: Iterable<Extent>,
  options: { readonly signal?: AbortSignal } = {},
): AsyncGenerator<{ piece: Extent; data: Buffer }> {
  const free = Array.from({ length: READS_AT_ONCE }, (): Buffer => Buffer.allocUnsafe(READ_BYTES));
  const underWay: { piece: Extent; buffer: Buffer; done: Promise<Error | undefined> }[] = [];
  const iterator = pieces[Symbol.iterator]();
  const startOne = () => {
    const next = iterator.next();
    if (next.done) return;
    const buffer = free.pop()!;
    const { offset, length } = next.value;
    // A failure is kept until its turn comes, so that no rejection is ever without a handler.
    const done = reader.readInto(buffer.subarray(0, length), offset).then(
      () => undefined,
      (error: Error) => error,
    );
    underWay.push({ piece: next.value, buffer, done });
  };
  for (let i = 0; i < READS_AT_ONCE; i++) startOne();
  try {
    for (let current = underWay.shift(); current; current = underWay.shift()) {
      const error = await current.done;
      if (error) throw error;
      throwIfAborted(options.signal);
      yield { piece: current.piece, data: current.buffer.subarray(0, current.piece.length) };
      free.push(current.buffer);
      startOne();
    }
  } finally {
    await Promise.all(underWay.map(({ done }) => done));
  }
}

export interface BlockDifference {
  /** Guest ranges whose bytes are not those that were signed; at most the first hundred. */
  readonly ranges: Extents;
  readonly blocks: number;
}

/** Compares what a chain reads as with a digest tree, over `ranges`. Undefined: equal. */
export async function differenceFrom(
  reader: ImageReader,
  tree: DigestTree,
  ranges: Extents,
  blockBytes: number,
  signal?: AbortSignal,
): Promise<BlockDifference | undefined> {
  const bad: Extent[] = [];
  let blocks = 0;
  for await (const { index, digest } of digestsOf(reader, ranges, blockBytes, signal)) {
    if (digest.equals(tree.get(index))) continue;
    blocks += 1;
    if (bad.length < 100) bad.push({ offset: index * blockBytes, length: blockBytes });
  }
  return blocks === 0 ? undefined : { ranges: extentsOf(bad), blocks };
}
