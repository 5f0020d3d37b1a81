const NEWLINE = 0x0a;
const FIRST_CAPACITY_BYTES = 4096;

export interface LineReaderOptions {
  /** Longest line kept, without its newline. Longer ones are dropped up to their end and reported. */
  readonly lineBytesMax: number;
  /** A byte that drops whatever came before it in the same line; the guest agent's 0xFF. */
  readonly restartByte?: number;
}

export interface LineListener {
  /**
   * One line without its newline. The bytes are valid only during the call. `restarted` tells that the line
   * came directly after a restart byte.
   */
  onLine(line: Buffer, restarted: boolean): void;
  /** A line was longer than allowed and has been dropped; the next line is read as usual. */
  onTooLong(): void;
}

/**
 * Cuts a stream of bytes from a stranger into lines. Every byte is looked at a fixed number of times and
 * copied at most a fixed number of times on average, however small the pieces are in which it comes; memory
 * stays below twice the longest line allowed.
 */
export class LineReader {
  readonly #options: LineReaderOptions;
  readonly #listener: LineListener;
  #held = Buffer.alloc(0);
  #heldBytes = 0;
  #restarted = false;
  #skipping = false;

  constructor(options: LineReaderOptions, listener: LineListener) {
    this.#options = options;
    this.#listener = listener;
  }

  push(chunk: Buffer): void {
    let start = 0;
    while (start < chunk.length) {
      const newline = chunk.indexOf(NEWLINE, start);
      this.#append(chunk.subarray(start, newline < 0 ? chunk.length : newline), newline >= 0);
      if (newline < 0) return;
      start = newline + 1;
    }
  }

  /** Bytes of an unfinished line: more than 0 at the end of a stream means that it was cut off. */
  get unfinishedBytes(): number {
    return this.#heldBytes;
  }

  #append(bytes: Buffer, lineEnds: boolean): void {
    let part = bytes;
    const { restartByte, lineBytesMax } = this.#options;
    const restart = restartByte === undefined ? -1 : part.lastIndexOf(restartByte);
    if (restart >= 0) {
      part = part.subarray(restart + 1);
      this.#heldBytes = 0;
      this.#restarted = true;
      this.#skipping = false;
    }
    if (this.#heldBytes + part.length > lineBytesMax) {
      this.#skipping = true;
      // The memory of the overlong line is given back, not kept for the next one.
      this.#held = Buffer.alloc(0);
      this.#heldBytes = 0;
    }
    if (!lineEnds) {
      if (!this.#skipping) this.#hold(part);
      return;
    }
    const restarted = this.#restarted;
    this.#restarted = false;
    if (this.#skipping) {
      this.#skipping = false;
      this.#listener.onTooLong();
      return;
    }
    // The usual case, a line that came in one piece, needs no copy.
    if (this.#heldBytes > 0) {
      this.#hold(part);
      part = this.#held.subarray(0, this.#heldBytes);
      this.#heldBytes = 0;
    }
    this.#listener.onLine(part, restarted);
  }

  #hold(part: Buffer): void {
    const needed = this.#heldBytes + part.length;
    if (needed > this.#held.length) {
      const doubled = Math.min(2 * this.#held.length, this.#options.lineBytesMax);
      const grown = Buffer.allocUnsafe(Math.max(needed, doubled, FIRST_CAPACITY_BYTES));
      this.#held.copy(grown, 0, 0, this.#heldBytes);
      this.#held = grown;
    }
    part.copy(this.#held, this.#heldBytes);
    this.#heldBytes = needed;
  }
}
