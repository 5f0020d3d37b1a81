import { cancelled, throwIfAborted } from '../lib/clock.ts';
import { deltaFailure } from './errors.ts';

/**
 * Takes byte strings of known length from a stream of chunks of any size. A string that lies in one chunk is
 * handed out as a part of that chunk; another is copied once. Holds one chunk and reads none ahead.
 */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #signal: AbortSignal | undefined;
  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;
  #taken = 0;
  #waiting = false;

  constructor(source: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined) {
    this.#source = source[Symbol.asyncIterator]();
    this.#signal = signal;
  }

  /** Bytes taken so far: the position of the next one. */
  get position(): number {
    return this.#taken;
  }

  /**
   * The next `length` bytes; throws DELTA_TRUNCATED if the source ends before. What must be copied is copied into `memory`, if it is
   * given, and into memory of its own otherwise.
   */
  async take(length: number, memory?: Buffer): Promise<Buffer> {
    throwIfAborted(this.#signal);
    if (this.#at === this.#chunk.length && length > 0) await this.#need(length);
    if (this.#chunk.length - this.#at >= length) return this.#advance(length);
    const result = memory?.subarray(0, length) ?? Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      if (this.#at === this.#chunk.length) await this.#need(length - done);
      const part = this.#advance(Math.min(this.#chunk.length - this.#at, length - done));
      part.copy(result, done);
      done += part.length;
    }
    return result;
  }

  /** Whether the source has ended; waits for its next byte or its end. */
  async atEnd(): Promise<boolean> {
    return this.#at === this.#chunk.length && !(await this.#nextChunk());
  }

  /** Lets the source go: at once, or by itself after a cancellation when the outstanding chunk has come. */
  async release(): Promise<void> {
    const released = this.#source.return?.();
    if (!this.#waiting) await released;
    // The caller has been told of the cancellation; how the source then ends changes nothing for him.
    else released?.catch(() => undefined);
  }

  #advance(length: number): Buffer {
    const part = this.#chunk.subarray(this.#at, this.#at + length);
    this.#at += length;
    this.#taken += length;
    return part;
  }

  async #need(missing: number): Promise<void> {
    if (await this.#nextChunk()) return;
    throw deltaFailure(
      'DELTA_TRUNCATED',
      `the stream ended at byte ${this.#taken}; ${missing} more were due`,
      {
        context: { position: this.#taken, missing },
      },
    );
  }

  /** Makes the next chunk that has bytes the current one; false at the end of the source. */
  async #nextChunk(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#unlessAborted(this.#source.next());
      if (done) return false;
      if (value.length === 0) continue;
      this.#chunk = Buffer.from(value.buffer, value.byteOffset, value.length);
      this.#at = 0;
      return true;
    }
  }

  async #unlessAborted<T>(work: Promise<T>): Promise<T> {
    this.#waiting = true;
    const signal = this.#signal;
    let onAbort: () => void = () => undefined;
    try {
      if (!signal) return await this.#settled(work);
      const aborted = new Promise<never>((_, reject) => {
        onAbort = () => reject(cancelled(signal));
        signal.addEventListener('abort', onAbort, { once: true });
      });
      return await Promise.race([this.#settled(work), aborted]);
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async #settled<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } finally {
      this.#waiting = false;
    }
  }
}
