import type { Clock } from '../lib/clock.ts';
import { Failure, messageOf } from '../lib/errors.ts';
import { addressText, type NbdAddress } from './address.ts';
import { ByteReader } from './byte-reader.ts';
import { nbdFailure } from './errors.ts';
import { type Agreement, askForTls, greet, type Line, negotiate } from './handshake.ts';
import { ReplyDecoder } from './reply-decoder.ts';
import type { NbdRequest } from './request.ts';
import { openTransport, type Receiver, secureTransport, type Transport } from './transport.ts';
import { COMMAND, encodeRequest } from './wire.ts';

/**
 * Requests under way on one connection. QEMU and nbdkit work on 16 at a time; more in the pipe hide the way
 * there and back, and further ones wait here, where they can still be withdrawn.
 */
const REQUESTS_MAX = 64;
/** Payload under way on one connection; one request is always let through, however large. */
const PAYLOAD_BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024;

/** A transport and the agreement reached on it. Throws the failures of transport and handshake. */
export async function shakeHands(
  address: NbdAddress,
  exportName: string,
  contexts: readonly string[],
  signal: AbortSignal,
): Promise<{ transport: Transport; reader: ByteReader; agreement: Agreement }> {
  let reader = new ByteReader();
  let transport = await openTransport(address, reader, signal);
  const giveUp = (): void => void transport.socket.destroy();
  signal.addEventListener('abort', giveUp);
  try {
    await greet(lineOf(transport, reader));
    if (address.kind === 'tcp' && address.tls !== undefined) {
      await askForTls(lineOf(transport, reader));
      reader = new ByteReader();
      transport = await secureTransport(transport, address.tls, reader, signal);
    }
    const agreement = await negotiate(lineOf(transport, reader), exportName, contexts);
    return { transport, reader, agreement };
  } catch (error) {
    transport.socket.destroy();
    throw error;
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

function lineOf(transport: Transport, reader: ByteReader): Line {
  return { reader, send: (bytes) => void transport.socket.write(bytes) };
}

/**
 * One connection in the transmission phase: requests go out as they come, up to a window; replies find their
 * request by cookie, in any order. It ends once, for one reason, and every request still under way gets that
 * reason. While requests are under way the server may not be silent for longer than `timeoutMs`.
 */
export class NbdConnection implements Receiver {
  /** Resolves when the socket is gone: undefined after `close`, else the reason. */
  readonly closed: Promise<Failure | undefined>;
  readonly #resolveClosed: (failure: Failure | undefined) => void;

  readonly #transport: Transport;
  readonly #decoder: ReplyDecoder;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #where: string;

  readonly #inFlight = new Map<number, NbdRequest>();
  readonly #queue: NbdRequest[] = [];
  #payloadInFlight = 0;
  #payloadWaiting = 0;
  #lastCookie = 0;
  #corked = false;
  #end: { failure: Failure | undefined } | undefined;
  #closing = false;
  /** Resolves when, after `close`, nothing is under way any more. */
  readonly #idle = Promise.withResolvers<void>();

  #lastLifeMs = 0;
  #cancelWatch: (() => void) | undefined;

  constructor(o: {
    transport: Transport;
    structured: boolean;
    clock: Clock;
    timeoutMs: number;
    address: NbdAddress;
  }) {
    const { promise, resolve } = Promise.withResolvers<Failure | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.#transport = o.transport;
    this.#clock = o.clock;
    this.#timeoutMs = o.timeoutMs;
    this.#where = addressText(o.address);
    const pending = {
      find: (cookie: number) => this.#inFlight.get(cookie),
      finished: (cookie: number) => this.#finished(cookie),
    };
    this.#decoder = new ReplyDecoder(pending, o.structured);
  }

  /** Takes over the stream from the handshake, together with what came after it. */
  start(reader: ByteReader): void {
    this.#transport.handTo(this);
    const rest = reader.rest();
    if (reader.failure !== undefined) this.abandon(reader.failure);
    else if (rest.length > 0) this.received(rest, rest.length);
  }

  /** Payload bytes and requests that have been asked for and not answered: the measure of how busy it is. */
  get load(): number {
    return this.#payloadInFlight + this.#payloadWaiting + (this.#inFlight.size + this.#queue.length) * 4096;
  }

  /** Sends the request as soon as the window allows; its fate shows in `request.settled`. */
  submit(request: NbdRequest): void {
    if (this.#end !== undefined || this.#closing) {
      request.reject(this.#end?.failure ?? closedFailure());
      return;
    }

    this.#queue.push(request);
    this.#payloadWaiting += request.payloadBytes;
    this.#pump();
  }

  /**
   * Gives a request up. Before it was sent it vanishes; after that the server still does it, and its reply is
   * received and dropped.
   */
  withdraw(request: NbdRequest, why: Error): void {
    const at = this.#queue.indexOf(request);
    if (at >= 0) {
      this.#queue.splice(at, 1);
      this.#payloadWaiting -= request.payloadBytes;
    }
    request.reject(why);
  }

  /** Waits for what is under way, tells the server, and lets go. Idempotent; never throws. */
  async close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true;
      if (this.#inFlight.size > 0) await this.#idle.promise;
      this.#disconnect();
    }
    await this.closed;
  }

  directTarget(): Uint8Array | undefined {
    return this.#end === undefined ? this.#decoder.directTarget() : undefined;
  }

  received(bytes: Uint8Array, length: number): void {
    if (this.#end !== undefined) return;
    this.#lastLifeMs = this.#clock.monotonicMs();
    try {
      this.#decoder.received(bytes, length);
    } catch (error) {
      // Anything but a failure is a bug of ours and ends the process.
      if (!(error instanceof Failure)) throw error;
      this.abandon(error);
    }
  }

  ended(error: Error | undefined): void {
    if (this.#end !== undefined) return;
    const why = error === undefined ? 'the server closed the connection' : messageOf(error);
    const failure = nbdFailure('NBD_DISCONNECTED', `connection to ${this.#where} lost: ${why}`, {
      context: { address: this.#where, pendingRequests: this.#inFlight.size + this.#queue.length },
      cause: error,
    });
    this.abandon(failure);
  }

  #pump(): void {
    while (this.#queue.length > 0 && this.#inFlight.size < REQUESTS_MAX) {
      const request = this.#queue[0]!;
      const payload = this.#payloadInFlight + request.payloadBytes;
      if (payload > PAYLOAD_BYTES_IN_FLIGHT_MAX && this.#inFlight.size > 0) return;
      this.#queue.shift();
      this.#payloadWaiting -= request.payloadBytes;
      this.#payloadInFlight = payload;
      this.#send(request);
    }
  }

  #send(request: NbdRequest): void {
    const cookie = this.#nextCookie();
    if (this.#inFlight.size === 0) this.#lastLifeMs = this.#clock.monotonicMs();
    this.#inFlight.set(cookie, request);
    this.#watch();
    const socket = this.#transport.socket;
    if (!this.#corked) {
      // All that is asked for in one turn of the event loop leaves with one system call.
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    socket.write(encodeRequest(request.command, request.flags, cookie, request.offset, request.length));
    if (request.payload !== undefined) socket.write(request.payload, this.#sent);
  }

  /** A slow server that still takes what is written to it is alive. */
  readonly #sent = (): void => {
    this.#lastLifeMs = this.#clock.monotonicMs();
  };

  #nextCookie(): number {
    do this.#lastCookie = (this.#lastCookie + 1) % 2 ** 32;
    while (this.#inFlight.has(this.#lastCookie));
    return this.#lastCookie;
  }

  #finished(cookie: number): void {
    const request = this.#inFlight.get(cookie)!;
    this.#inFlight.delete(cookie);
    this.#payloadInFlight -= request.payloadBytes;
    if (this.#queue.length > 0) this.#pump();
    else if (this.#inFlight.size === 0 && this.#closing) this.#idle.resolve();
  }

  /** One timer a connection, set again only when it fires: requests themselves cost no timer. */
  #watch(): void {
    if (this.#cancelWatch !== undefined) return;
    const silentMs = this.#clock.monotonicMs() - this.#lastLifeMs;
    this.#cancelWatch = this.#clock.after(Math.max(1, this.#timeoutMs - silentMs), () => {
      this.#cancelWatch = undefined;
      if (this.#inFlight.size === 0) return;
      if (this.#clock.monotonicMs() - this.#lastLifeMs < this.#timeoutMs) return this.#watch();
      const text = `${this.#where} was silent for ${this.#timeoutMs} ms with requests under way`;
      this.abandon(nbdFailure('NBD_TIMEOUT', text, { context: { address: this.#where } }));
    });
  }

  #disconnect(): void {
    if (this.#end !== undefined) return;
    const socket = this.#transport.socket;
    const cancelLimit = this.#clock.after(this.#timeoutMs, () => socket.destroy());
    this.#over(undefined);
    socket.end(encodeRequest(COMMAND.DISC, 0, this.#nextCookie(), 0, 0), () => socket.destroy());
    socket.once('close', cancelLimit);
  }

  /** Ends the connection at once, with this reason for everything under way; without effect on an ended one. */
  abandon(failure: Failure): void {
    if (this.#end !== undefined) return;
    this.#over(failure);
    this.#transport.socket.destroy();
  }

  #over(failure: Failure | undefined): void {
    this.#end = { failure };
    this.#cancelWatch?.();
    const socket = this.#transport.socket;
    if (socket.closed) this.#resolveClosed(failure);
    else socket.once('close', () => this.#resolveClosed(failure));
    const lost = [...this.#inFlight.values(), ...this.#queue.splice(0)];
    this.#inFlight.clear();
    for (const request of lost) request.reject(failure ?? closedFailure());
    this.#idle.resolve();
  }
}

function closedFailure(): Failure {
  return nbdFailure('NBD_CLOSED', 'the NBD client was closed');
}
