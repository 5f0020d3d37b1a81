import { createConnection, type Socket } from 'node:net';
import { cancelled } from '../lib/clock.ts';
import { type LineListener, LineReader, type LineReaderOptions } from './line-reader.ts';

export interface LineSocketListener extends LineListener {
  /** Called once, after the last line; with the error of the operating system if there was one. */
  onClosed(cause: Error | undefined): void;
}

/** A connected Unix socket on which both sides talk in lines. */
export class LineSocket {
  readonly #socket: Socket;
  readonly #closed: Promise<Error | undefined>;

  constructor(socket: Socket) {
    this.#socket = socket;
    let cause: Error | undefined;
    socket.on('error', (error) => {
      cause = error;
    });
    this.#closed = new Promise((resolve) => socket.once('close', () => resolve(cause)));
  }

  /** Rejects with the plain error of the operating system, or with CANCELLED. */
  static connect(path: string, signal?: AbortSignal): Promise<LineSocket> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(cancelled(signal));
      const socket = createConnection({ path });
      const onAbort = () => {
        socket.destroy();
        reject(cancelled(signal!));
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      socket.once('error', (error) => {
        signal?.removeEventListener('abort', onAbort);
        reject(error);
      });
      socket.once('connect', () => {
        signal?.removeEventListener('abort', onAbort);
        socket.removeAllListeners('error');
        resolve(new LineSocket(socket));
      });
    });
  }

  /** Starts reading; to be called once, at once after `connect`. No byte is lost before. `filter` sees the bytes first. */
  listen(
    options: LineReaderOptions & { readonly filter?: (chunk: Buffer) => Buffer },
    listener: LineSocketListener,
  ): void {
    const { filter = (chunk: Buffer) => chunk, ...lines } = options;
    const reader = new LineReader(lines, listener);
    this.#socket.on('data', (chunk: Buffer) => {
      // After `close` what is still in flight is of no interest any more.
      if (!this.#socket.destroyed) reader.push(filter(chunk));
    });
    void this.#closed.then((cause) => listener.onClosed(cause));
  }

  /** The socket itself, to be handed over to a child process. */
  get shared(): Socket {
    return this.#socket;
  }

  /** Queues bytes; a failure to send them shows as the end of the connection. */
  send(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Ends the connection without waiting for the other side; idempotent. */
  async close(): Promise<void> {
    this.#socket.destroy();
    await this.#closed;
  }
}
