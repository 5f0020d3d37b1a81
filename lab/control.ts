import type { Readable, Writable } from 'node:stream';
import { labFailure } from './errors.ts';

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** What QEMU says on its own: see «QMP events» in QEMU's documentation. */
export interface ControlEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/**
 * The lab's own monitor: QMP over QEMU's standard input and output. The product has a client of its own for
 * sockets; this one leaves every socket free for the code under test, and being a pipe it is there before
 * QEMU is, so that nothing is ever waited for by time.
 */
export class Control {
  readonly #input: Writable;
  readonly #waiting: Waiting[] = [];
  readonly #listeners = new Set<(event: ControlEvent) => void>();
  readonly #greeted: Promise<void>;
  #onGreeting: Waiting | undefined;
  #ended: Error | undefined;

  constructor(input: Writable, output: Readable) {
    this.#input = input;
    this.#greeted = new Promise((resolve, reject) => {
      this.#onGreeting = { resolve: () => resolve(), reject };
    });
    input.on('error', (error) => this.end(error));
    let rest = '';
    output.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) if (line.trim() !== '') this.#takeLine(line);
    });
  }

  /** Resolves when QEMU is ready for commands. */
  async start(): Promise<void> {
    await this.#greeted;
    await this.execute('qmp_capabilities');
  }

  /** QEMU answers in the order of asking. Throws LAB_MACHINE_FAILED with QEMU's own words. */
  execute(command: string, args: object = {}): Promise<unknown> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#input.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  subscribe(listener: (event: ControlEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Rejects whatever is still waited for: QEMU has gone. */
  end(why: Error): void {
    this.#ended ??= why;
    this.#onGreeting?.reject(why);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(why);
  }

  #takeLine(line: string): void {
    try {
      this.#take(JSON.parse(line));
    } catch (error) {
      this.end(labFailure('LAB_MACHINE_FAILED', `QEMU said «${line.slice(0, 200)}»`, { cause: error }));
    }
  }

  #take(message: { QMP?: object; event?: string; return?: unknown; error?: { desc: string } }): void {
    if (message.QMP) this.#onGreeting?.resolve(undefined);
    else if (message.event) for (const listener of this.#listeners) listener(message as ControlEvent);
    else if (message.error)
      this.#waiting.shift()?.reject(labFailure('LAB_MACHINE_FAILED', message.error.desc));
    else this.#waiting.shift()?.resolve(message.return);
  }
}
