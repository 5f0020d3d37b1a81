import { connect as connectSocket, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { cancelled, throwIfAborted } from '../lib/clock.ts';
import { messageOf, systemCodeOf } from '../lib/errors.ts';
import { addressText, type NbdAddress, type NbdTls } from './address.ts';
import { nbdFailure } from './errors.ts';

/**
 * One reused buffer a connection. Large enough that many small replies come with one system call, small
 * enough to stay in the processor's cache and to leave most of a large payload to be read in place.
 */
const SCRATCH_BYTES = 128 * 1024;

/** Who takes the bytes of a socket; changes once, from the handshake to the transmission phase. */
export interface Receiver {
  /** Memory for the next bytes, or undefined for the socket's own buffer. */
  directTarget(): Uint8Array | undefined;
  /** The first `length` bytes of `bytes` are new; they must be consumed before returning. */
  received(bytes: Uint8Array, length: number): void;
  /** Nothing more will come: orderly end (no error), or the error of the socket. */
  ended(error: Error | undefined): void;
}

/**
 * A connected socket whose bytes go to a receiver. Without TLS they pass no stream's buffers (the `onread` option
 * of node:net): the receiver may even name the memory that the next bytes are read into.
 */
export interface Transport {
  readonly socket: Socket;
  handTo(receiver: Receiver): void;
}

class Feed {
  readonly #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  #receiver: Receiver;

  constructor(receiver: Receiver) {
    this.#receiver = receiver;
  }

  handTo(receiver: Receiver): void {
    this.#receiver = receiver;
  }

  readonly onread = {
    buffer: (): Uint8Array => this.#receiver.directTarget() ?? this.#scratch,
    callback: (length: number, bytes: Uint8Array): boolean => {
      this.#receiver.received(bytes, length);
      return true;
    },
  };

  readonly onData = (bytes: Uint8Array): void => this.#receiver.received(bytes, bytes.length);

  /** Tells the receiver once of the end, whichever event comes first. */
  watch(socket: Socket): Transport {
    let over = false;
    const end = (error?: Error): void => {
      if (over) return;
      over = true;
      this.#receiver.ended(error);
    };
    socket.on('error', end);
    socket.on('end', () => end());
    socket.on('close', () => end());
    return { socket, handTo: (receiver) => this.handTo(receiver) };
  }
}

/** Throws NBD_UNREACHABLE, or CANCELLED. Takes as long as the network lets it: the caller sets the limit. */
export async function openTransport(
  address: NbdAddress,
  receiver: Receiver,
  signal: AbortSignal,
): Promise<Transport> {
  throwIfAborted(signal);
  const feed = new Feed(receiver);
  const where = address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
  const socket = connectSocket({ ...where, onread: feed.onread, noDelay: true });
  await opened(socket, 'connect', signal, (error) =>
    nbdFailure('NBD_UNREACHABLE', `cannot connect to ${addressText(address)}: ${messageOf(error)}`, {
      context: { address: addressText(address), systemCode: systemCodeOf(error) },
      cause: error,
    }),
  );
  return feed.watch(socket);
}

/**
 * TLS over a connected socket, after the server agreed to it. Throws NBD_TLS_FAILED when the other side does
 * not prove to be `tls.serverName`.
 */
export async function secureTransport(
  plain: Transport,
  tls: NbdTls,
  receiver: Receiver,
  signal: AbortSignal,
): Promise<Transport> {
  const feed = new Feed(receiver);
  const options = {
    socket: plain.socket,
    ca: typeof tls.ca === 'string' ? tls.ca : [...tls.ca],
    servername: tls.serverName,
    cert: tls.identity?.certificate,
    key: tls.identity?.key,
    minVersion: 'TLSv1.3' as const,
    rejectUnauthorized: true,
  };
  let socket: Socket;
  try {
    socket = connectTls(options);
  } catch (error) {
    // Unusable certificates and keys are noticed here, before anything is sent.
    throw nbdFailure('NBD_TLS_FAILED', `the TLS options cannot be used: ${messageOf(error)}`, {
      cause: error,
    });
  }
  await opened(socket, 'secureConnect', signal, (error) =>
    nbdFailure('NBD_TLS_FAILED', `no trusted TLS connection to ${tls.serverName}: ${messageOf(error)}`, {
      context: { serverName: tls.serverName, systemCode: systemCodeOf(error) },
      cause: error,
    }),
  );
  // Node takes no `onread` for TLS over a socket that exists already: the bytes come as events.
  socket.on('data', feed.onData);
  return feed.watch(socket);
}

function opened(
  socket: Socket,
  event: 'connect' | 'secureConnect',
  signal: AbortSignal,
  failure: (error: unknown) => Error,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (error?: Error): void => {
      socket.off(event, onOpen);
      socket.off('error', onError);
      socket.off('close', onClose);
      signal.removeEventListener('abort', onAbort);
      if (error === undefined) {
        resolve();
        return;
      }
      // A destroyed socket may still report an error of its own; the reason is already known.
      socket.on('error', () => undefined);
      socket.destroy();
      reject(error);
    };
    const onOpen = (): void => done();
    const onError = (error: Error): void => done(failure(error));
    const onClose = (): void => done(failure(new Error('the other side closed the connection')));
    const onAbort = (): void => done(cancelled(signal));
    socket.on(event, onOpen);
    socket.on('error', onError);
    socket.on('close', onClose);
    signal.addEventListener('abort', onAbort);
  });
}
