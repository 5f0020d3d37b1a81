import { blockDigest, type DigestTree } from '../delta/index.ts';
import type { ImageReader } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { alignOutward, type Extent, type Extents, extentsOf, piecesOf } from '../lib/extents.ts';

/** Read in pieces of this size at the most: large enough for speed, small enough for memory. */
const READ_BYTES = 1024 * 1024;
/** What is read ahead in all. Scattered blocks are small, and the time of each is mostly waiting: many are under way then. */
const AHEAD_BYTES = 4 * READ_BYTES;
const READS_AT_ONCE = 32;

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
 * valid until the next one is asked for. Memory: what the pieces have in all, 4 MiB at the most.
 */
export async function* readAhead(
  reader: ImageReader,
  pieces: Iterable<Extent>,
  options: { readonly signal?: AbortSignal } = {},
): AsyncGenerator<{ piece: Extent; data: Buffer }> {
  const iterator = pieces[Symbol.iterator]();
  const first = firstOf(iterator, AHEAD_BYTES);
  const ring = new Ring(Math.min(first.bytes, AHEAD_BYTES));
  const underWay: { piece: Extent; data: Buffer; done: Promise<Error | undefined> }[] = [];
  const following = () => first.pieces.shift() ?? nextOf(iterator);
  let next = following();
  const start = () => {
    while (next !== undefined && underWay.length < READS_AT_ONCE) {
      const piece = next;
      const data = ring.take(piece.length);
      if (!data) return;
      // A failure is kept until its turn comes, so that no rejection is ever without a handler.
      const done = reader.readInto(data, piece.offset).then(
        () => undefined,
        (error: Error) => error,
      );
      underWay.push({ piece, data, done });
      next = following();
    }
  };
  start();
  try {
    for (let current = underWay.shift(); current; current = underWay.shift()) {
      const { piece, data, done } = current;
      const error = await done;
      if (error) throw error;
      throwIfAborted(options.signal);
      yield { piece, data };
      ring.giveBack();
      start();
    }
  } finally {
    await Promise.all(underWay.map(({ done }) => done));
  }
}

/** The pieces that come first, until they have so many bytes or there are no more. */
function firstOf(
  iterator: Iterator<Extent>,
  bytesWanted: number,
): { readonly pieces: Extent[]; readonly bytes: number } {
  const pieces: Extent[] = [];
  let bytes = 0;
  while (bytes < bytesWanted) {
    const piece = nextOf(iterator);
    if (piece === undefined) break;
    pieces.push(piece);
    bytes += piece.length;
  }
  return { pieces, bytes };
}

function nextOf<T>(iterator: Iterator<T>): T | undefined {
  const next = iterator.next();
  return next.done ? undefined : next.value;
}

/** Buffers out of one piece of memory, given back in the order in which they were taken. */
class Ring {
  readonly #memory: Buffer;
  /** Lengths of those taken, the oldest first, each with what was left over at the end of the memory before it. */
  readonly #taken: number[] = [];
  #takenBytes = 0;
  #head = 0;

  constructor(sizeBytes: number) {
    this.#memory = Buffer.allocUnsafeSlow(sizeBytes);
  }

  /** Undefined if so much is not free in one piece. */
  take(length: number): Buffer | undefined {
    const size = this.#memory.length;
    const skipped = this.#head + length > size ? size - this.#head : 0;
    if (this.#takenBytes + skipped + length > size) return undefined;
    const start = (this.#head + skipped) % size;
    this.#taken.push(skipped + length);
    this.#takenBytes += skipped + length;
    this.#head = start + length;
    return this.#memory.subarray(start, start + length);
  }

  giveBack(): void {
    this.#takenBytes -= this.#taken.shift() ?? 0;
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
