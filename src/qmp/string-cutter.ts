const NEWLINE = 0x0a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** The guest agent's delimiter: whatever came before it in the line is dropped by the reader. */
const RESTART = 0xff;

/**
 * Shortens the strings in lines of JSON while they come in: of each, the first bytes are let through. So a reply keeps its
 * other members, such as an exit code, however much a program in the guest has printed. Every byte is looked at once.
 */
export class StringCutter {
  readonly #bytesMax: number;
  #isInString = false;
  #isEscaped = false;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  push(chunk: Buffer): Buffer {
    const kept = Buffer.allocUnsafe(chunk.length);
    let length = 0;
    for (const byte of chunk) {
      if (this.#passes(byte)) kept[length++] = byte;
    }
    return kept.subarray(0, length);
  }

  #passes(byte: number): boolean {
    if (byte === NEWLINE || byte === RESTART) {
      this.#isInString = false;
      return true;
    }
    if (!this.#isInString) {
      if (byte === QUOTE) {
        this.#isInString = true;
        this.#isEscaped = false;
        this.#bytes = 0;
      }
      return true;
    }
    if (byte === QUOTE && !this.#isEscaped) {
      this.#isInString = false;
      return true;
    }
    this.#isEscaped = byte === BACKSLASH && !this.#isEscaped;
    this.#bytes += 1;
    return this.#bytes <= this.#bytesMax;
  }
}
