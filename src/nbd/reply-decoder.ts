import { nbdFailure } from './errors.ts';
import type { NbdRequest } from './request.ts';
import {
  CHUNK,
  CHUNK_ERROR_BIT,
  COMMAND,
  COOKIE_HIGH,
  commandName,
  REPLY_FLAG_DONE,
  readUint64,
  SIMPLE_REPLY_MAGIC,
  STATUS_DESCRIPTORS_MAX,
  STRING_BYTES_MAX,
  STRUCTURED_REPLY_MAGIC,
  serverText,
} from './wire.ts';

/** The requests that wait for replies. */
export interface Pending {
  find(cookieLow: number): NbdRequest | undefined;
  /** The reply of this request is complete and was handed to it. */
  finished(cookieLow: number): void;
}

/** From this many missing bytes on the rest of a payload is read straight into its target. */
const DIRECT_BYTES_MIN = 16 * 1024;

/** Room for any fixed part and for an error chunk with its text. */
const ERROR_CHUNK_BYTES_MAX = STRING_BYTES_MAX + 14;

type Step = (bytes: Buffer, at: number) => void;

/**
 * Turns the bytes of the transmission phase into parts of replies. It keeps no payload: data goes from the
 * socket's buffer to the request's target in one copy, or in none where `directTarget` was used.
 *
 * The state is «how many bytes are needed next, and who takes them»: a step sees exactly those bytes side by
 * side, wherever the socket happened to cut the stream.
 */
export class ReplyDecoder {
  readonly #pending: Pending;
  readonly #structured: boolean;

  #need = 16;
  #step: Step = (bytes, at) => this.#takeHead(bytes, at);
  /** Holds the beginning of a part that the socket cut. */
  #partial = Buffer.allocUnsafe(ERROR_CHUNK_BYTES_MAX);
  #partialBytes = 0;

  #request: NbdRequest | undefined;
  #cookieLow = 0;
  #chunkType: number = CHUNK.NONE;
  #chunkBytes = 0;
  #done = false;

  /** Position in the request's target, and how much of the payload is still to come. */
  #dataAt = 0;
  #dataLeft = 0;
  #direct: Uint8Array | undefined;

  constructor(pending: Pending, structured: boolean) {
    this.#pending = pending;
    this.#structured = structured;
  }

  /**
   * Memory that the next bytes of the stream belong into, or undefined where they must be looked at first.
   * After this call the next bytes must be given to `received` in that very buffer.
   */
  directTarget(): Uint8Array | undefined {
    this.#direct =
      this.#dataLeft >= DIRECT_BYTES_MIN
        ? this.#request!.target!.subarray(this.#dataAt, this.#dataAt + this.#dataLeft)
        : undefined;
    return this.#direct;
  }

  /** Takes the first `length` bytes of `bytes`. Throws NBD_PROTOCOL; the stream cannot be read on after that. */
  received(bytes: Uint8Array, length: number): void {
    if (bytes === this.#direct) {
      this.#tookData(length);
      return;
    }
    const source = Buffer.from(bytes.buffer, bytes.byteOffset, length);
    let at = 0;
    while (at < length) {
      if (this.#dataLeft > 0) {
        const count = Math.min(this.#dataLeft, length - at);
        source.copy(this.#request!.target!, this.#dataAt, at, at + count);
        at += count;
        this.#tookData(count);
      } else if (this.#partialBytes === 0 && length - at >= this.#need) {
        const start = at;
        at += this.#need;
        this.#step(source, start);
      } else {
        at += this.#collect(source, at, length);
      }
    }
  }

  #collect(source: Buffer, at: number, length: number): number {
    if (this.#need > this.#partial.length) this.#partial = Buffer.allocUnsafe(this.#need);
    const count = Math.min(this.#need - this.#partialBytes, length - at);
    source.copy(this.#partial, this.#partialBytes, at, at + count);
    this.#partialBytes += count;
    if (this.#partialBytes === this.#need) {
      const whole = this.#partial;
      this.#partialBytes = 0;
      if (whole.length > ERROR_CHUNK_BYTES_MAX) this.#partial = Buffer.allocUnsafe(ERROR_CHUNK_BYTES_MAX);
      this.#step(whole, 0);
    }
    return count;
  }

  #expect(need: number, step: Step): void {
    this.#need = need;
    this.#step = step;
  }

  /** The sixteen bytes that both kinds of reply begin with. */
  readonly #takeHead: Step = (bytes, at) => {
    const magic = bytes.readUInt32BE(at);
    if (magic !== SIMPLE_REPLY_MAGIC && magic !== STRUCTURED_REPLY_MAGIC) {
      throw nbdFailure('NBD_PROTOCOL', `a reply begins with 0x${magic.toString(16)}, which is no reply`);
    }
    this.#cookieLow = bytes.readUInt32BE(at + 12);
    const known = bytes.readUInt32BE(at + 8) === COOKIE_HIGH;
    const request = known ? this.#pending.find(this.#cookieLow) : undefined;
    if (request === undefined) throw nbdFailure('NBD_PROTOCOL', 'a reply with a cookie that no request has');
    this.#request = request;
    if (magic === SIMPLE_REPLY_MAGIC) return this.#takeSimple(request, bytes.readUInt32BE(at + 4));
    if (!this.#structured) throw nbdFailure('NBD_PROTOCOL', 'a structured reply that was not negotiated');
    this.#done = (bytes.readUInt16BE(at + 4) & REPLY_FLAG_DONE) !== 0;
    this.#chunkType = bytes.readUInt16BE(at + 6);
    this.#expect(4, this.#takeLength);
  };

  #takeSimple(request: NbdRequest, errno: number): void {
    if (this.#structured && (request.command === COMMAND.READ || request.command === COMMAND.BLOCK_STATUS)) {
      const what = commandName(request.command);
      throw nbdFailure('NBD_PROTOCOL', `a simple reply to ${what} although structured replies were agreed`);
    }
    this.#done = true;
    if (errno === 0 && request.command === COMMAND.READ) {
      this.#expectData(request.offset, request.length);
      return;
    }
    if (errno !== 0) request.takeError(errno, '');
    this.#endChunk();
  }

  readonly #takeLength: Step = (bytes, at) => {
    const length = bytes.readUInt32BE(at);
    this.#chunkBytes = length;
    const request = this.#request!;
    if ((this.#chunkType & CHUNK_ERROR_BIT) !== 0) {
      const atLeast = this.#chunkType === CHUNK.ERROR_OFFSET ? 14 : 6;
      this.#checkLength(length >= atLeast && length <= ERROR_CHUNK_BYTES_MAX);
      return this.#expect(length, this.#takeErrorChunk);
    }
    switch (this.#chunkType) {
      case CHUNK.NONE:
        this.#checkLength(length === 0 && this.#done);
        return this.#endChunk();
      case CHUNK.OFFSET_DATA:
        this.#checkLength(length > 8 && length - 8 <= request.length);
        return this.#expect(8, this.#takeDataOffset);
      case CHUNK.OFFSET_HOLE:
        this.#checkLength(length === 12);
        return this.#expect(12, this.#takeHoleChunk);
      case CHUNK.BLOCK_STATUS: {
        const count = (length - 4) / 8;
        const most = Math.min(STATUS_DESCRIPTORS_MAX, request.length);
        this.#checkLength(Number.isInteger(count) && count >= 1 && count <= most);
        return this.#expect(length, this.#takeStatusChunk);
      }
      default:
        throw nbdFailure('NBD_PROTOCOL', `a reply chunk of the unknown type ${this.#chunkType}`);
    }
  };

  #checkLength(right: boolean): void {
    if (right) return;
    throw nbdFailure(
      'NBD_PROTOCOL',
      `a reply chunk of type ${this.#chunkType} with ${this.#chunkBytes} bytes in answer to ${this.#request!.describe()}`,
    );
  }

  readonly #takeDataOffset: Step = (bytes, at) => {
    this.#expectData(readUint64(bytes, at), this.#chunkBytes - 8);
  };

  readonly #takeHoleChunk: Step = (bytes, at) => {
    this.#request!.takeHole(readUint64(bytes, at), bytes.readUInt32BE(at + 8));
    this.#endChunk();
  };

  readonly #takeStatusChunk: Step = (bytes, at) => {
    this.#request!.takeStatus(bytes.readUInt32BE(at), bytes, at + 4, (this.#chunkBytes - 4) / 8);
    this.#endChunk();
  };

  /** Error chunks of unknown types fail the request like known ones: they all begin alike. */
  readonly #takeErrorChunk: Step = (bytes, at) => {
    const textBytes = bytes.readUInt16BE(at + 4);
    const tail = this.#chunkType === CHUNK.ERROR_OFFSET ? 8 : 0;
    this.#checkLength(textBytes + 6 + tail <= this.#chunkBytes);
    const request = this.#request!;
    request.takeError(bytes.readUInt32BE(at), serverText(bytes.subarray(at + 6, at + 6 + textBytes)));
    if (tail > 0) request.takeErrorOffset(readUint64(bytes, at + 6 + textBytes));
    this.#endChunk();
  };

  #expectData(offset: number, length: number): void {
    this.#dataAt = this.#request!.takeContent(offset, length);
    this.#dataLeft = length;
  }

  #tookData(count: number): void {
    this.#dataAt += count;
    this.#dataLeft -= count;
    if (this.#dataLeft === 0) this.#endChunk();
  }

  #endChunk(): void {
    const request = this.#request!;
    this.#request = undefined;
    this.#expect(16, this.#takeHead);
    if (!this.#done) return;
    request.finish();
    this.#pending.finished(this.#cookieLow);
  }
}
