import { crc32 } from 'node:zlib';
import { assert } from '../lib/assert.ts';
import { canonicalJson } from '../lib/canonical-json.ts';
import { blockCount, DIGEST_BYTES } from './blocks.ts';
import { ByteReader } from './byte-reader.ts';
import { decompressed } from './compression.ts';
import { deltaFailure } from './errors.ts';
import {
  DATA_FRAME_BYTES_MAX,
  FORMAT_VERSION,
  FORMAT_VERSION_SAME,
  HEADER_BYTES_MAX,
  LEAVES_BYTES_MAX,
  PREAMBLE_BYTES,
  STATEMENT_BYTES_MAX,
  STREAM_MAGIC,
  TRAILER_BYTES_MAX,
} from './format.ts';
import {
  crcMatches,
  decodeHead,
  FRAME_TYPES,
  type FrameHead,
  HEAD_BYTES,
  payloadLengthOf,
} from './frame-head.ts';
import {
  countFault,
  type DeltaProgress,
  NOTHING_RECEIVED,
  orderFault,
  progressAfter,
} from './frame-order.ts';
import { type DeltaHeader, type DeltaTrailer, headerFault, trailerFault } from './header.ts';
import { decodeJson } from './json-payload.ts';

export interface DeltaDataFrame {
  readonly type: 'data';
  /** Number in the whole delta, from 0. */
  readonly number: number;
  /** Index into the header's disks. */
  readonly disk: number;
  readonly offset: number;
  /** May be a part of a chunk of the source, which must not write to its chunks again, or of `DecodeOptions.memory`. */
  readonly data: Buffer;
}

export interface DeltaZeroFrame {
  readonly type: 'zero';
  readonly number: number;
  readonly disk: number;
  readonly offset: number;
  readonly length: number;
}

/** Whole blocks whose bytes the receiver takes from an older copy of the disk that it has said it has. */
export interface DeltaSameFrame {
  readonly type: 'same';
  readonly number: number;
  readonly disk: number;
  readonly offset: number;
  /** 1 MiB at most. */
  readonly length: number;
  /** A leaf of 32 bytes for each block; never in `DecodeOptions.memory`, which is free for the blocks themselves. */
  readonly leaves: Buffer;
}

export type DeltaFrame =
  | DeltaDataFrame
  | DeltaZeroFrame
  | DeltaSameFrame
  | { readonly type: 'trailer'; readonly trailer: DeltaTrailer };

/** Limits that a caller may lower below those of the format; in bytes. */
export interface DeltaLimits {
  readonly headerBytes: number;
  readonly trailerBytes: number;
  readonly dataFrameBytes: number;
}

const FORMAT_LIMITS: DeltaLimits = {
  headerBytes: HEADER_BYTES_MAX,
  trailerBytes: TRAILER_BYTES_MAX,
  dataFrameBytes: DATA_FRAME_BYTES_MAX,
};

export interface DecodeOptions {
  readonly limits?: Partial<DeltaLimits>;
  /** What is there already of the delta that this stream resumes. Nothing by default: a whole stream is due. */
  readonly received?: DeltaProgress | ((header: DeltaHeader) => DeltaProgress | Promise<DeltaProgress>);
  /**
   * 1 MiB in which data is put together, one frame after the other: a frame's data is then valid only until the next frame is
   * asked for. Without it each frame has memory of its own, which costs a fast stream more than all copying.
   */
  readonly memory?: Buffer;
  /** Ends the decoding with CANCELLED, also while it waits for bytes. */
  readonly signal?: AbortSignal;
}

/**
 * Reads a delta stream and believes none of it: see docs/format.md, «What a reader must check».
 *
 * Resolves with the header; `frames` then gives the pieces in order and the trailer last, after the source has
 * been seen to end. The source is read only as fast as `frames` is, one frame at a time, so memory stays within
 * one chunk and one frame (1 MiB and its payload; the trailer 4 MiB and its value). The source's iterator is
 * returned at the end and after a failure, which destroys a Node stream: to answer a peer on the same
 * connection pass `stream.iterator({ destroyOnReturn: false })`. If `frames` is never read, the source is the
 * caller's to close.
 *
 * Throws, here and from `frames`: DELTA_NOT_A_DELTA, DELTA_NEWER, DELTA_TRUNCATED, DELTA_CORRUPT,
 * DELTA_INVALID, DELTA_LIMIT, DELTA_RESUME_MISMATCH, CANCELLED, and what the source throws.
 */
export async function decodeDelta(
  source: AsyncIterable<Uint8Array>,
  options: DecodeOptions = {},
): Promise<{ header: DeltaHeader; frames: AsyncGenerator<DeltaFrame> }> {
  const limits = { ...FORMAT_LIMITS, ...options.limits };
  assert((options.memory?.length ?? DATA_FRAME_BYTES_MAX) >= DATA_FRAME_BYTES_MAX, 'memory holds any frame');
  for (const name of Object.keys(FORMAT_LIMITS) as (keyof DeltaLimits)[]) {
    assert(limits[name] <= FORMAT_LIMITS[name], `${name} can only be lowered`);
  }
  const reader = new ByteReader(source, options.signal);
  try {
    const version = await readPreamble(reader);
    const header = await readHeader(reader, limits);
    const { received = NOTHING_RECEIVED } = options;
    const progress = typeof received === 'function' ? await received(header) : received;
    if (header.firstFrame !== progress.frames) {
      throw deltaFailure(
        'DELTA_RESUME_MISMATCH',
        `the stream begins at frame ${header.firstFrame}; frame ${progress.frames} is due`,
        { context: { firstFrame: header.firstFrame, due: progress.frames } },
      );
    }
    return {
      header,
      frames: readFrames(reader, header, progress, { limits, version, memory: options.memory }),
    };
  } catch (error) {
    await reader.release();
    throw error;
  }
}

async function readPreamble(reader: ByteReader): Promise<number> {
  const bytes = await reader.take(PREAMBLE_BYTES);
  if (!bytes.subarray(0, STREAM_MAGIC.length).equals(STREAM_MAGIC)) {
    throw deltaFailure('DELTA_NOT_A_DELTA', 'the bytes do not begin with the magic of a delta stream');
  }
  if (bytes.readUInt32BE(12) !== crc32(bytes.subarray(0, 12))) {
    throw deltaFailure('DELTA_CORRUPT', 'the preamble is damaged');
  }
  const version = bytes.readUInt32BE(8);
  if (version > FORMAT_VERSION_SAME) {
    const said = `the stream has version ${version}; known here: ${FORMAT_VERSION_SAME}`;
    throw deltaFailure('DELTA_NEWER', said, { context: { version } });
  }
  if (version < 1) throw deltaFailure('DELTA_INVALID', 'the stream has version 0');
  return version;
}

async function readHeader(reader: ByteReader, limits: DeltaLimits): Promise<DeltaHeader> {
  const { head, payload, position } = await readFrame(reader, limits);
  if (head.type !== 'header') throw invalid(position, `a ${head.type} frame stands where the header is due`);
  const value = decodeJson(payload, 'header');
  const fault = headerFault(value);
  if (fault) throw invalid(position, `header: ${fault}`);
  return value as unknown as DeltaHeader;
}

async function* readFrames(
  reader: ByteReader,
  header: DeltaHeader,
  received: DeltaProgress,
  o: { readonly limits: DeltaLimits; readonly version: number; readonly memory: Buffer | undefined },
): AsyncGenerator<DeltaFrame> {
  let progress = received;
  try {
    for (;;) {
      const { head, payload, position } = await readFrame(reader, o.limits, o.memory);
      if (head.type === 'header') throw invalid(position, 'a second header');
      if (head.type === 'same' && o.version < FORMAT_VERSION_SAME) {
        throw invalid(position, `a same frame in a stream of version ${FORMAT_VERSION}`);
      }
      if (head.type === 'trailer') {
        const trailer = trailerOf(payload, progress, position);
        if (!(await reader.atEnd())) throw invalid(reader.position, 'bytes follow the trailer');
        yield { type: 'trailer', trailer };
        return;
      }
      const range = { type: head.type, disk: head.disk, offset: head.guestOffset, length: head.guestLength };
      const fault = orderFault(header, progress, range);
      if (fault) throw invalid(position, fault);
      const place = { number: progress.frames, disk: head.disk, offset: head.guestOffset };
      progress = progressAfter(progress, range);
      if (head.type === 'zero') {
        yield { type: 'zero', ...place, length: head.guestLength };
      } else if (head.type === 'same') {
        const due = blockCount(head.guestLength, header.blockBytes) * DIGEST_BYTES;
        if (payload.length !== due)
          throw invalid(position, `${payload.length} bytes of leaves; ${due} are due`);
        yield { type: 'same', ...place, length: head.guestLength, leaves: payload };
      } else {
        const data = head.compression === 'none' ? payload : await decompressed(payload, head.guestLength);
        yield { type: 'data', ...place, data };
      }
    }
  } finally {
    await reader.release();
  }
}

function trailerOf(payload: Buffer, progress: DeltaProgress, position: number): DeltaTrailer {
  const value = decodeJson(payload, 'trailer');
  const fault = trailerFault(value);
  if (fault) throw invalid(position, `trailer: ${fault}`);
  const trailer = value as unknown as DeltaTrailer;
  if (Buffer.byteLength(canonicalJson(trailer.statement)) > STATEMENT_BYTES_MAX) {
    throw deltaFailure('DELTA_LIMIT', 'the statement is larger than 4 MiB');
  }
  const difference = countFault(progress, trailer);
  if (difference) throw invalid(position, `trailer: ${difference}`);
  return trailer;
}

interface RawFrame {
  readonly head: FrameHead;
  readonly payload: Buffer;
  /** Where in the stream the frame begins, for messages. */
  readonly position: number;
}

/** One frame whose size, CRC and shape are good; its order and content are not looked at. */
async function readFrame(reader: ByteReader, limits: DeltaLimits, memory?: Buffer): Promise<RawFrame> {
  const position = reader.position;
  const headBytes = await reader.take(HEAD_BYTES);
  const payloadLength = payloadLengthOf(headBytes);
  const payloadLimit = payloadLimitOf(headBytes, limits);
  if (payloadLength > payloadLimit) {
    throw deltaFailure(
      'DELTA_LIMIT',
      `the frame at byte ${position} announces ${payloadLength} bytes; ${payloadLimit} are allowed`,
      { context: { position, payloadLength } },
    );
  }
  const isData = headBytes.readUInt8(0) === FRAME_TYPES.data;
  const payload = await reader.take(payloadLength, isData ? memory : undefined);
  if (!crcMatches(headBytes, payload)) {
    throw deltaFailure('DELTA_CORRUPT', `the frame at byte ${position} is damaged: its CRC differs`, {
      context: { position },
    });
  }
  const head = decodeHead(headBytes);
  if (!head) throw invalid(position, 'an unknown type or compression, or a number above 2^53 − 1');
  const fault = shapeFault(head, limits);
  if (fault) throw invalid(position, fault);
  return { head, payload, position };
}

/** Payload bytes that a frame of this type may have; 0 also for unknown types, which have none to read. */
function payloadLimitOf(headBytes: Buffer, limits: DeltaLimits): number {
  switch (headBytes.readUInt8(0)) {
    case FRAME_TYPES.header:
      return limits.headerBytes;
    case FRAME_TYPES.data:
      return limits.dataFrameBytes;
    case FRAME_TYPES.trailer:
      return limits.trailerBytes;
    case FRAME_TYPES.same:
      return LEAVES_BYTES_MAX;
    default:
      return 0;
  }
}

/** Names what is wrong with the fields of a head by themselves, or undefined. */
function shapeFault(head: FrameHead, limits: DeltaLimits): string | undefined {
  if (head.type === 'data') {
    if (head.guestLength > limits.dataFrameBytes) return `a data frame of ${head.guestLength} bytes`;
    const good =
      head.compression === 'none'
        ? head.payloadLength === head.guestLength
        : head.payloadLength < head.guestLength;
    return good ? undefined : `${head.payloadLength} payload bytes for ${head.guestLength} guest bytes`;
  }
  if (head.compression !== 'none') return `a compressed ${head.type} frame`;
  if (head.type === 'same') {
    return head.guestLength > DATA_FRAME_BYTES_MAX
      ? `a same frame over ${head.guestLength} bytes`
      : undefined;
  }
  if (head.type === 'zero') return head.payloadLength === 0 ? undefined : 'a zero frame with a payload';
  if (head.disk !== 0 || head.guestOffset !== 0 || head.guestLength !== 0) {
    return `a ${head.type} frame with a guest range`;
  }
  return undefined;
}

function invalid(position: number, why: string): Error {
  return deltaFailure('DELTA_INVALID', `the stream is invalid at byte ${position}: ${why}`, {
    context: { position },
  });
}
