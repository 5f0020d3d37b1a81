/** One write to a connection at most: large enough that its cost does not count, two of them a connection. */
const OUTBOX_BYTES = 1024 * 1024;

/** Passes bytes on; `taken` is called once when they are no longer looked at, and never if they could not be passed on. */
export type PassOn = (bytes: Buffer, taken: () => void) => void;

/**
 * Two buffers between a source and a connection: one is filled while the connection takes the other. What is put in is
 * copied, so the source may use its memory again at once. What came while the connection was busy leaves as one write,
 * and when it is idle nothing waits for more.
 *
 * Each buffer has one owner at any time: it is filled, or spare, or (from `passOn` to `taken`) the connection's.
 */
export class Outbox {
  readonly #passOn: PassOn;
  #filling: Buffer = Buffer.allocUnsafeSlow(OUTBOX_BYTES);
  #filledBytes = 0;
  /** Undefined while the connection has it. */
  #spare: Buffer | undefined = Buffer.allocUnsafeSlow(OUTBOX_BYTES);
  #onTaken: (() => void) | undefined;

  constructor(passOn: PassOn) {
    this.#passOn = passOn;
  }

  /** Whether the connection has taken everything. */
  get isEmpty(): boolean {
    return this.#filledBytes === 0 && this.#spare !== undefined;
  }

  /** Copies as much of the beginning of `bytes` as there is room for, and says how much; 0 means: wait for `taken`. */
  put(bytes: Uint8Array): number {
    const count = Math.min(bytes.length, OUTBOX_BYTES - this.#filledBytes);
    this.#filling.set(count === bytes.length ? bytes : bytes.subarray(0, count), this.#filledBytes);
    this.#filledBytes += count;
    if (this.#filledBytes === OUTBOX_BYTES) this.send();
    return count;
  }

  /** Passes on what is there, now or as soon as the connection has taken what it has. */
  send(): void {
    if (this.#filledBytes === 0 || this.#spare === undefined) return;
    const buffer = this.#filling;
    const bytes = buffer.subarray(0, this.#filledBytes);
    this.#filling = this.#spare;
    this.#filledBytes = 0;
    this.#spare = undefined;
    this.#passOn(bytes, () => {
      this.#spare = buffer;
      this.send();
      this.#onTaken?.();
    });
  }

  /** Resolves when the connection has taken what it has. One wait at a time. */
  taken(): Promise<void> {
    return new Promise((resolve) => {
      this.#onTaken = resolve;
    });
  }
}
