import { crc32 } from 'node:zlib';
import { assert } from '../lib/assert.ts';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { blockCount, DIGEST_BYTES } from './blocks.ts';
import { compressed } from './compression.ts';
import { deltaFailure } from './errors.ts';
import {
  DATA_FRAME_BYTES_MAX,
  FORMAT_VERSION,
  FORMAT_VERSION_SAME,
  HEADER_BYTES_MAX,
  PREAMBLE_BYTES,
  STATEMENT_BYTES_MAX,
  STREAM_MAGIC,
  TRAILER_BYTES_MAX,
} from './format.ts';
import { encodeHead } from './frame-head.ts';
import {
  countFault,
  type DeltaProgress,
  type DeltaRange,
  NOTHING_RECEIVED,
  orderFault,
  progressAfter,
} from './frame-order.ts';
import { type DeltaHeader, type DeltaTrailer, headerFault } from './header.ts';
import { encodeJson } from './json-payload.ts';

/** How data frames are packed; `zstdLevel` as in zstd (−7 … 19; 1 is a good start). */
export type DeltaCompression = 'none' | { readonly zstdLevel: number };

/**
 * Makes the frames of one delta stream: `preamble` once, then `data`, `zero` and `same` in the order of the format,
 * then `trailer` once. Buffers come back as they go onto the wire, in the order of the calls; uncompressed
 * data is the caller's own memory, which must stay unchanged until it has been written.
 *
 * Calls out of order are bugs of the caller and meet assertions. `encodeDelta` keeps several compressions
 * under way and is what senders normally use.
 */
export class DeltaEncoder {
  readonly #compression: DeltaCompression;
  readonly #mayBeSame: boolean;
  #header: DeltaHeader | undefined;
  #progress: DeltaProgress = NOTHING_RECEIVED;
  #ended = false;

  /** With `same` the stream may have frames of that type, and is of version 2. */
  constructor(options: { readonly compression: DeltaCompression; readonly same?: boolean }) {
    this.#compression = options.compression;
    this.#mayBeSame = options.same ?? false;
  }

  /** How far the stream has come. */
  get progress(): DeltaProgress {
    return this.#progress;
  }

  /**
   * Preamble and header frame. `resumed` is what the receiver has of the delta already and must agree with
   * `header.firstFrame`. Throws DELTA_LIMIT for a header that is too large.
   */
  preamble(header: DeltaHeader, resumed: DeltaProgress = NOTHING_RECEIVED): Buffer[] {
    assert(this.#header === undefined, 'a delta stream has one header');
    const fault = headerFault(header as unknown as Json);
    assert(fault === undefined, `invalid delta header: ${fault}`);
    assert(header.firstFrame === resumed.frames, 'firstFrame must be the frames that the receiver has');
    this.#header = header;
    this.#progress = resumed;
    const preamble = Buffer.alloc(PREAMBLE_BYTES);
    STREAM_MAGIC.copy(preamble);
    preamble.writeUInt32BE(this.#mayBeSame ? FORMAT_VERSION_SAME : FORMAT_VERSION, 8);
    preamble.writeUInt32BE(crc32(preamble.subarray(0, 12)), 12);
    return [preamble, ...jsonFrame('header', header as unknown as Json, HEADER_BYTES_MAX)];
  }

  /** A data frame of 1 to 1,048,576 bytes at `offset` of the disk with that index: `[head, payload]`. */
  async data(disk: number, offset: number, data: Uint8Array): Promise<Buffer[]> {
    assert(data.length <= DATA_FRAME_BYTES_MAX, `a data frame of ${data.length} bytes is too large`);
    this.#take({ type: 'data', disk, offset, length: data.length });
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    const packed =
      this.#compression === 'none' ? undefined : await compressed(bytes, this.#compression.zstdLevel);
    const payload = packed ?? bytes;
    const head = encodeHead(
      {
        type: 'data',
        compression: packed ? 'zstd' : 'none',
        disk,
        payloadLength: payload.length,
        guestOffset: offset,
        guestLength: data.length,
      },
      payload,
    );
    return [head, payload];
  }

  /** A zero frame of any length. */
  zero(disk: number, offset: number, length: number): Buffer[] {
    this.#take({ type: 'zero', disk, offset, length });
    const head = encodeHead(
      { type: 'zero', compression: 'none', disk, payloadLength: 0, guestOffset: offset, guestLength: length },
      Buffer.alloc(0),
    );
    return [head];
  }

  /** Blocks that the receiver's older copy has: their leaves, 32 bytes each, in the place of their bytes. */
  same(disk: number, offset: number, length: number, leaves: Uint8Array): Buffer[] {
    assert(this.#mayBeSame, 'the receiver has an older copy');
    assert(length <= DATA_FRAME_BYTES_MAX, `a frame over ${length} bytes is too large`);
    this.#take({ type: 'same', disk, offset, length });
    const blocks = blockCount(length, this.#header!.blockBytes);
    assert(leaves.length === blocks * DIGEST_BYTES, 'every block has a leaf');
    const payload = Buffer.from(leaves.buffer, leaves.byteOffset, leaves.length);
    const head = encodeHead(
      {
        ...{ type: 'same', compression: 'none', disk },
        ...{ payloadLength: payload.length, guestOffset: offset, guestLength: length },
      },
      payload,
    );
    return [head, payload];
  }

  /** The last frame; its counts are those of the whole delta. Throws DELTA_LIMIT for a large statement. */
  trailer(trailer: DeltaTrailer): Buffer[] {
    assert(this.#header !== undefined && !this.#ended, 'a trailer follows a header, once');
    const fault = countFault(this.#progress, trailer);
    assert(fault === undefined, `wrong delta trailer: ${fault}`);
    const statementBytes = Buffer.byteLength(canonicalJson(trailer.statement));
    if (statementBytes > STATEMENT_BYTES_MAX) {
      throw deltaFailure('DELTA_LIMIT', `the statement has ${statementBytes} bytes; 4 MiB are allowed`);
    }
    this.#ended = true;
    return jsonFrame('trailer', trailer as unknown as Json, TRAILER_BYTES_MAX);
  }

  #take(range: DeltaRange): void {
    assert(this.#header !== undefined && !this.#ended, 'frames lie between header and trailer');
    const fault = orderFault(this.#header, this.#progress, range);
    assert(fault === undefined, `invalid delta frame: ${fault}`);
    this.#progress = progressAfter(this.#progress, range);
  }
}

function jsonFrame(type: 'header' | 'trailer', value: Json, bytesMax: number): Buffer[] {
  const payload = encodeJson(value, bytesMax, type);
  const head = encodeHead(
    { type, compression: 'none', disk: 0, payloadLength: payload.length, guestOffset: 0, guestLength: 0 },
    payload,
  );
  return [head, payload];
}
