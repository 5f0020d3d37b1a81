import type { IncomingMessage } from 'node:http';
import type { Clock } from '../lib/clock.ts';
import { peerFailure } from './errors.ts';
import type { Peer } from './peer.ts';
import { Stop } from './stop.ts';
import { Watchdog } from './watchdog.ts';

/** What is read ahead of the handler, so that the wire does not rest while the disk works: pauses above … */
const AHEAD_MAX_BYTES = 4 * 1024 * 1024;
/** … and goes on below. */
const AHEAD_RESUME_BYTES = 2 * 1024 * 1024;

/**
 * The body of an upload as its handler sees it. At most 4 MiB are read ahead of the handler. Throws PEER_STALLED when
 * the handler has waited `stallTimeoutMs` for a byte, PEER_CONNECTION_LOST when the body ends early, and the reason
 * of `signal`. Leaving it early does not end the connection.
 */
export async function* uploadSource(
  message: IncomingMessage,
  o: { peer: Peer; clock: Clock; stallTimeoutMs: number; signal: AbortSignal },
): AsyncGenerator<Buffer, void, undefined> {
  const stop = new Stop();
  const onAbort = (): void => stop.now(o.signal.reason as Error);
  if (o.signal.aborted) onAbort();
  o.signal.addEventListener('abort', onAbort, { once: true });
  const watchdog = new Watchdog(o.clock, o.stallTimeoutMs, () =>
    stop.now(
      peerFailure('PEER_STALLED', `no byte came from ${o.peer.name} in ${o.stallTimeoutMs} ms`, {
        context: { peer: o.peer.name, stallTimeoutMs: o.stallTimeoutMs },
      }),
    ),
  );
  const body = new ReadAhead(message, o.peer);
  try {
    for (;;) {
      if (body.isEmpty) {
        watchdog.start();
        await stop.or(body.more());
        watchdog.stop();
      } else if (stop.reason) {
        throw stop.reason;
      }
      const chunk = body.take();
      if (chunk === undefined) break;
      yield chunk;
    }
  } finally {
    watchdog.stop();
    body.leave();
    o.signal.removeEventListener('abort', onAbort);
  }
}

/** The bytes of a message that have come and were not taken yet. */
class ReadAhead {
  readonly #message: IncomingMessage;
  readonly #peer: Peer;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(message: IncomingMessage, peer: Peer) {
    this.#message = message;
    this.#peer = peer;
    message
      .on('data', this.#onData)
      .on('end', this.#onEnd)
      .on('error', this.#onLost)
      .on('close', this.#onLost);
  }

  /** Nothing can be taken yet: neither a chunk nor the end. */
  get isEmpty(): boolean {
    return this.#chunks.length === 0 && !this.#ended && !this.#failure;
  }

  /** Resolves when there is a chunk, the end or a failure. */
  more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** The next chunk, or undefined at the end. What came before a loss is handed out before its failure. */
  take(): Buffer | undefined {
    const chunk = this.#chunks.shift();
    if (chunk === undefined) {
      if (this.#failure) throw this.#failure;
      return undefined;
    }
    this.#bytes -= chunk.length;
    if (this.#bytes <= AHEAD_RESUME_BYTES && this.#message.isPaused()) this.#message.resume();
    return chunk;
  }

  leave(): void {
    this.#message.off('data', this.#onData).off('end', this.#onEnd).off('close', this.#onLost);
    this.#message.pause();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes >= AHEAD_MAX_BYTES) this.#message.pause();
    this.#wake?.();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#wake?.();
  };

  /** A `close` after the end says nothing new. The listener for errors stays: a late one must not end the process. */
  readonly #onLost = (cause?: Error): void => {
    if (this.#ended || this.#failure) return;
    this.#failure = peerFailure(
      'PEER_CONNECTION_LOST',
      `the connection with ${this.#peer.name} ended inside an upload`,
      { context: { peer: this.#peer.name }, ...(cause ? { cause } : {}) },
    );
    this.#wake?.();
  };
}
