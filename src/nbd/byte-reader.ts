import type { Failure } from '../lib/errors.ts';
import { nbdFailure } from './errors.ts';
import type { Receiver } from './transport.ts';

/** A server has no reason to be further ahead than this while options are haggled over. */
const UNREAD_BYTES_MAX = 256 * 1024;

/** Bytes on demand, for the handshake: few, small, one after the other. */
export class ByteReader implements Receiver {
  #unread: Buffer = Buffer.alloc(0);
  #ended: Failure | undefined;
  #waiting:
    | { count: number; resolve: (bytes: Buffer) => void; reject: (failure: Failure) => void }
    | undefined;

  directTarget(): undefined {
    return undefined;
  }

  received(bytes: Uint8Array, length: number): void {
    if (this.#ended !== undefined) return;
    if (this.#unread.length + length > UNREAD_BYTES_MAX) {
      this.#end(nbdFailure('NBD_PROTOCOL', 'the server sends without being asked during the handshake'));
      return;
    }
    this.#unread = Buffer.concat([this.#unread, bytes.subarray(0, length)]);
    this.#serve();
  }

  ended(error: Error | undefined): void {
    const why = error === undefined ? 'the server closed the connection' : error.message;
    this.#end(nbdFailure('NBD_DISCONNECTED', `${why} during the handshake`, { cause: error }));
  }

  /** The next `count` bytes. One call at a time. Throws NBD_DISCONNECTED when the stream ends before. */
  take(count: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { count, resolve, reject };
      this.#serve();
    });
  }

  /** Bytes that came and that nobody asked for. */
  rest(): Buffer {
    const rest = this.#unread;
    this.#unread = Buffer.alloc(0);
    return rest;
  }

  /** Why the stream ended, if it did. */
  get failure(): Failure | undefined {
    return this.#ended;
  }

  #serve(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    if (this.#unread.length >= waiting.count) {
      this.#waiting = undefined;
      const taken = this.#unread.subarray(0, waiting.count);
      this.#unread = this.#unread.subarray(waiting.count);
      waiting.resolve(taken);
    } else if (this.#ended !== undefined) {
      this.#waiting = undefined;
      waiting.reject(this.#ended);
    }
  }

  #end(failure: Failure): void {
    this.#ended ??= failure;
    this.#serve();
  }
}
