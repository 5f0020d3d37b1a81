import { throwIfAborted } from '../lib/clock.ts';
import { type DeltaCompression, DeltaEncoder } from './encoder.ts';
import { DATA_FRAME_BYTES_MAX } from './format.ts';
import { type DeltaProgress, NOTHING_RECEIVED } from './frame-order.ts';
import type { DeltaHeader, DeltaTrailer } from './header.ts';

/** Compressions under way at once: enough for the four threads of Node's pool, with 4 MiB of copies at most. */
const AHEAD_MAX = 4;

/** What a sender gives: ranges in the order of the format; data at most 1 MiB each. */
export type DeltaPiece =
  | { readonly type: 'data'; readonly disk: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly type: 'zero'; readonly disk: number; readonly offset: number; readonly length: number }
  /** Whole blocks that an older copy at the receiver has, with a leaf of 32 bytes for each. */
  | {
      readonly type: 'same';
      readonly disk: number;
      readonly offset: number;
      readonly length: number;
      readonly leaves: Uint8Array;
    };

export interface EncodeOptions {
  readonly compression: DeltaCompression;
  /** What the receiver has already; `pieces` then begin behind it. Nothing by default. */
  readonly resumed?: DeltaProgress;
  /** The receiver has an older copy: pieces of the type `same` may come. */
  readonly same?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * A whole delta stream as buffers in wire order. Pulls pieces as fast as it is read, and up to four ahead while it
 * compresses. The memory of a piece is the caller's again when the next piece is asked for; what is yielded is valid until
 * the next buffer is asked for, because uncompressed it is the memory of the piece. `statement` is asked for once, when all
 * pieces have been taken. Throws DELTA_LIMIT, CANCELLED, and what `pieces` and `statement` throw; it then has yielded no
 * trailer, and the stream counts as truncated.
 */
export async function* encodeDelta(
  header: DeltaHeader,
  pieces: AsyncIterable<DeltaPiece> | Iterable<DeltaPiece>,
  statement: () => DeltaTrailer['statement'] | Promise<DeltaTrailer['statement']>,
  options: EncodeOptions,
): AsyncGenerator<Buffer> {
  const { compression, resumed = NOTHING_RECEIVED, same = false, signal } = options;
  const encoder = new DeltaEncoder({ compression, same });
  yield* encoder.preamble(header, resumed);
  const aheadMax = compression === 'none' ? 1 : AHEAD_MAX;
  const ahead: { readonly frame: Promise<Buffer[]>; readonly copy: Buffer | undefined }[] = [];
  // Compression goes on while further pieces are asked for, so it works on copies; as many as are ahead, used in turn.
  const spare: Buffer[] = [];
  const copyOf = (data: Uint8Array): Buffer => {
    const copy = spare.pop() ?? Buffer.allocUnsafeSlow(DATA_FRAME_BYTES_MAX);
    copy.set(data);
    return copy;
  };
  async function* first(): AsyncGenerator<Buffer> {
    const { frame, copy } = ahead.shift()!;
    yield* await frame;
    if (copy) spare.push(copy);
  }
  try {
    for await (const piece of pieces) {
      throwIfAborted(signal);
      const copy = piece.type === 'data' && compression !== 'none' ? copyOf(piece.data) : undefined;
      const frame =
        piece.type === 'data'
          ? encoder.data(piece.disk, piece.offset, copy?.subarray(0, piece.data.length) ?? piece.data)
          : Promise.resolve(shortFrame(encoder, piece));
      // Its failure is heard when its turn comes; until then it must not count as unhandled.
      frame.catch(() => undefined);
      ahead.push({ frame, copy });
      if (ahead.length >= aheadMax) yield* first();
    }
    while (ahead.length > 0) yield* first();
  } finally {
    // Left early, the thread pool may still be reading the copies.
    await Promise.allSettled(ahead.map(({ frame }) => frame));
  }
  throwIfAborted(signal);
  const { frames, dataBytes, zeroBytes } = encoder.progress;
  yield* encoder.trailer({ frames, dataBytes, zeroBytes, statement: await statement() });
}

/** A frame without guest bytes. */
function shortFrame(encoder: DeltaEncoder, piece: Exclude<DeltaPiece, { type: 'data' }>): Buffer[] {
  const { disk, offset, length } = piece;
  return piece.type === 'same'
    ? encoder.same(disk, offset, length, piece.leaves)
    : encoder.zero(disk, offset, length);
}
