import { connect, type Socket } from 'node:net';
import { type Clock, withTimeout } from '../src/lib/clock.ts';
import { messageOf } from '../src/lib/errors.ts';
import { labFailure } from './errors.ts';

/** The guest said: record `seq` is durable on its disk. */
export interface LedgerReport {
  readonly seq: number;
  /** The guest's wall clock when it wrote. */
  readonly guestMs: number;
  /** The host's clocks when the report arrived: always after the record was durable. */
  readonly hostWallMs: number;
  readonly hostMonotonicMs: number;
}

/** A report is at most this long; more without a line end is not ours. */
const LINE_CHARS_MAX = 256;
const REPORT = /^(\d{1,15}) (\d{1,15})$/;

/**
 * Listens to the ledger writer of one machine. Reports that arrive while nobody is connected are lost, and so
 * is one of which the guest's port had no room: `last` is a lower bound of what is durable, never more.
 */
export class LedgerPort {
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #listeners = new Set<(report: LedgerReport) => void>();
  readonly #closed = Promise.withResolvers<never>();
  #last: LedgerReport | undefined;
  #rest = '';

  private constructor(socket: Socket, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
  }

  /** Throws LAB_PORT_CLOSED when nobody listens at `path`. */
  static async connect(options: { path: string; clock: Clock }): Promise<LedgerPort> {
    const socket = connect(options.path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (error) =>
        reject(labFailure('LAB_PORT_CLOSED', `${options.path}: ${messageOf(error)}`, { cause: error })),
      );
    });
    const port = new LedgerPort(socket, options.clock);
    port.#listen(options.path);
    return port;
  }

  /** The newest report, undefined before the first. */
  get last(): LedgerReport | undefined {
    return this.#last;
  }

  subscribe(listener: (report: LedgerReport) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first report with at least this seq. Throws LAB_TIMEOUT, LAB_PORT_CLOSED. */
  async reached(seq: number, limitMs = 30_000): Promise<LedgerReport> {
    if (this.#last && this.#last.seq >= seq) return this.#last;
    const arrived = Promise.withResolvers<LedgerReport>();
    const unsubscribe = this.subscribe((report) => {
      if (report.seq >= seq) arrived.resolve(report);
    });
    try {
      return await withTimeout(
        this.#clock,
        limitMs,
        () => Promise.race([arrived.promise, this.#closed.promise]),
        () =>
          labFailure('LAB_TIMEOUT', `the ledger did not reach ${seq} in ${limitMs} ms: ${this.#last?.seq}`),
      );
    } finally {
      unsubscribe();
    }
  }

  /** The next report that arrives from now on: proof that the guest writes. */
  next(limitMs?: number): Promise<LedgerReport> {
    return this.reached((this.#last?.seq ?? 0) + 1, limitMs);
  }

  close(): void {
    this.#socket.destroy();
  }

  #listen(path: string): void {
    // Whoever waits gets the rejection; nobody need be waiting when the machine ends.
    this.#closed.promise.catch(() => undefined);
    const closed = (why: string) =>
      this.#closed.reject(labFailure('LAB_PORT_CLOSED', `the ledger port ${path} was closed${why}`));
    this.#socket.on('error', (error) => closed(`: ${messageOf(error)}`));
    this.#socket.on('close', () => closed(''));
    this.#socket.setEncoding('latin1').on('data', (text) => this.#take(String(text)));
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!.slice(-LINE_CHARS_MAX);
    for (const line of lines) {
      // The first line after connecting may be the tail of one, so what does not parse is left alone.
      const match = REPORT.exec(line);
      if (!match) continue;
      const report: LedgerReport = {
        seq: Number(match[1]),
        guestMs: Number(match[2]),
        hostWallMs: this.#clock.wallMs(),
        hostMonotonicMs: this.#clock.monotonicMs(),
      };
      this.#last = report;
      for (const listener of this.#listeners) listener(report);
    }
  }
}
