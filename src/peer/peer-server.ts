import { constants } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server, type ServerOptions } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Json } from '../lib/canonical-json.ts';
import { type Clock, withTimeout } from '../lib/clock.ts';
import { Failure, KIND_TABLE, messageOf, systemCodeOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { newId, type Random } from '../lib/random.ts';
import { WARMSITE_VERSION } from '../lib/records.ts';
import { readJson } from './body.ts';
import { claimedSite, faultOfLeaf } from './certificate-check.ts';
import { certificateFrom } from './certificates.ts';
import { peerFailure } from './errors.ts';
import { failureForWire } from './failure-wire.ts';
import type { SiteIdentity } from './identity.ts';
import { type Leaf, LeafKeeper } from './leaf-keeper.ts';
import type { Pairing } from './pairing.ts';
import type { Peer } from './peer.ts';
import type { PeerDirectory } from './peer-directory.ts';
import {
  HEADER,
  isCallName,
  LIMIT,
  PATH,
  PROTOCOL,
  STALL_TIMEOUT_MS,
  TCP_KEEP_ALIVE_MS,
} from './protocol.ts';
import { uploadSource } from './upload-source.ts';

/**
 * Answers one call. `peer` has been authenticated; what it may do is the handler's decision, and so is the check of
 * `body`. `signal` is aborted when the peer goes away, is revoked, or the server closes. A call whose answer was
 * lost is repeated by its sender: handlers must be idempotent.
 */
export type CallHandler = (peer: Peer, body: Json, signal: AbortSignal) => Promise<Json>;

/**
 * Takes one upload. `source` gives the body with back-pressure and throws when it ends early. The handler's answer
 * is sent as soon as it returns or throws, also before the source has ended.
 */
export type UploadHandler = (
  peer: Peer,
  session: string,
  source: AsyncIterable<Buffer>,
  signal: AbortSignal,
) => Promise<Json>;

export interface PeerServerOptions {
  readonly host: string;
  /** 0 for any free port. */
  readonly port: number;
  readonly identity: SiteIdentity;
  readonly peers: PeerDirectory;
  readonly pairing: Pairing;
  readonly calls: Readonly<Record<string, CallHandler>>;
  readonly upload: UploadHandler;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** An upload from which no byte came for this long is given up; 30 s unless given. */
  readonly stallTimeoutMs?: number;
}

/** A request under way. */
interface Active {
  readonly controller: AbortController;
  readonly socket: TLSSocket;
  siteId?: string;
  done?: Promise<void>;
}

/** The site port: serves pinned peers, and whoever holds a pairing token. */
export class PeerServer {
  readonly #o: PeerServerOptions;
  readonly #leaves: LeafKeeper;
  /** By it peers know that a site was started again which they did not miss. */
  readonly #startId: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #active = new Set<Active>();
  /** The connections over which a peer has been recognised. */
  readonly #recognised = new Map<TLSSocket, string>();
  #unwatch: () => void = () => undefined;
  #leaf: Leaf;

  private constructor(o: PeerServerOptions) {
    this.#o = o;
    this.#leaves = new LeafKeeper(o);
    this.#startId = newId(o.clock, o.random);
    this.#leaf = this.#leaves.current();
    this.#server = createServer(serverOptions(this.#leaf));
  }

  /** Resolves when the port is open; PEER_LISTEN_FAILED if it cannot be opened. */
  static async listen(o: PeerServerOptions): Promise<PeerServer> {
    const server = new PeerServer(o);
    await server.#open();
    return server;
  }

  get address(): { readonly host: string; readonly port: number } {
    const { address, port } = this.#server.address() as AddressInfo;
    return { host: address, port };
  }

  /** Stops accepting, aborts what is under way, and returns when every connection is closed. */
  async close(): Promise<void> {
    this.#unwatch();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const { controller } of this.#active) {
      controller.abort(peerFailure('PEER_CLOSED', `${this.#o.identity.name} is shutting down`));
    }
    const active = Promise.all([...this.#active].map(({ done }) => done));
    const giveUp = peerFailure('PEER_CLOSED', 'a handler did not end');
    await withTimeout(
      this.#o.clock,
      LIMIT.lingerMs,
      () => active,
      () => giveUp,
    ).catch((error: unknown) => {
      if (error !== giveUp) throw error;
      this.#o.log.warn('peer.handler-outlived-server', { requests: this.#active.size });
    });
    for (const socket of this.#sockets) socket.destroySoon();
    await closed;
  }

  async #open(): Promise<void> {
    const { host, port, log } = this.#o;
    this.#server.maxConnections = LIMIT.connections;
    // Before TLS sees the connection, so that it is served with a leaf that is valid now.
    this.#server.prependListener('connection', (socket: Socket) => {
      this.#renewLeaf();
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('tlsClientError', (error, socket) => {
      log.info('peer.handshake-failed', { from: socket.remoteAddress, reason: messageOf(error) });
    });
    this.#server.on('clientError', (error, socket) => {
      log.info('peer.request-unreadable', { reason: messageOf(error) });
      socket.destroy();
    });
    this.#server.on('request', (request, response) => this.#serve(request, response));
    this.#unwatch = this.#o.peers.watch((peer) => this.#endRevoked(peer));
    await new Promise<void>((resolve, reject) => {
      const onError = (error: Error): void => {
        this.#unwatch();
        const details = { context: { host, port, system: systemCodeOf(error) ?? null }, cause: error };
        reject(
          peerFailure('PEER_LISTEN_FAILED', `cannot listen at ${host}:${port}: ${messageOf(error)}`, details),
        );
      };
      this.#server.once('error', onError);
      this.#server.listen(port, host, () => {
        this.#server.off('error', onError);
        resolve();
      });
    });
  }

  #renewLeaf(): void {
    const leaf = this.#leaves.current();
    if (leaf === this.#leaf) return;
    this.#leaf = leaf;
    this.#server.setSecureContext(tlsOptions(leaf));
    this.#o.log.info('peer.leaf-renewed', { notAfterMs: leaf.notAfterMs });
  }

  #endRevoked(peer: Peer): void {
    if (peer.revokedAtMs === undefined) return;
    const answering = new Set<Socket>();
    for (const { siteId, socket, controller } of this.#active) {
      if (siteId !== peer.siteId) continue;
      controller.abort(revoked(peer));
      // This one is closed behind its answer, which tells why; see #send.
      answering.add(socket);
    }
    for (const [socket, siteId] of this.#recognised) {
      if (siteId === peer.siteId && !answering.has(socket)) socket.destroy();
    }
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const active: Active = { controller: new AbortController(), socket: request.socket as TLSSocket };
    response.once('close', () => {
      if (response.writableFinished) return;
      active.controller.abort(
        peerFailure('PEER_CONNECTION_LOST', 'the peer went away before it was answered'),
      );
    });
    this.#active.add(active);
    active.done = this.#answer(active, request, response).finally(() => this.#active.delete(active));
  }

  /** Never rejects. */
  async #answer(active: Active, request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const result = await this.#route(active, request, response);
      this.#send(request, response, 200, { result });
    } catch (error) {
      const failure = failureForWire(error);
      const about = { url: request.url, from: active.socket.remoteAddress, siteId: active.siteId };
      if (error instanceof Failure) this.#o.log.info('peer.request-refused', { ...about, code: error.code });
      else this.#o.log.error('peer.handler-broke', { ...about, error });
      this.#send(request, response, KIND_TABLE[failure.kind].httpStatus, { failure });
    }
  }

  async #route(active: Active, request: IncomingMessage, response: ServerResponse): Promise<Json> {
    const path = request.url ?? '';
    if (request.method === 'POST' && path === PATH.pair) {
      checkProtocol(request);
      const presented = active.socket.getPeerX509Certificate();
      if (!presented) throw certificateMissing();
      return await this.#o.pairing.accept(
        await this.#body(request, LIMIT.pairBytes, 'a new site'),
        presented,
      );
    }
    const peer = this.#peerOf(active.socket);
    active.siteId = peer.siteId;
    checkProtocol(request);
    if (request.method === 'GET' && path === PATH.hello) return this.#hello();
    if (request.method === 'POST' && path.startsWith(PATH.call)) {
      const name = path.slice(PATH.call.length);
      const handler = Object.hasOwn(this.#o.calls, name) ? this.#o.calls[name] : undefined;
      if (handler) {
        const body = await this.#body(request, LIMIT.callBytes, peer.name);
        return await handler(peer, body, active.controller.signal);
      }
    }
    if (request.method === 'POST' && path.startsWith(PATH.upload)) {
      const session = path.slice(PATH.upload.length);
      if (isCallName(session)) return await this.#upload(active, request, response, peer, session);
    }
    throw peerFailure('PEER_CALL_UNKNOWN', `${this.#o.identity.name} does not know this call`, {
      context: { path: path.slice(0, 200) },
    });
  }

  async #upload(
    active: Active,
    request: IncomingMessage,
    response: ServerResponse,
    peer: Peer,
    session: string,
  ): Promise<Json> {
    const { clock } = this.#o;
    const { signal } = active.controller;
    const everyMs = heartbeatOf(request);
    let cancelBeat: () => void = () => undefined;
    const beat = (): void => {
      if (!response.headersSent && !response.destroyed) response.writeProcessing();
      cancelBeat = clock.after(everyMs, beat);
    };
    beat();
    const stallTimeoutMs = this.#o.stallTimeoutMs ?? STALL_TIMEOUT_MS;
    try {
      const source = uploadSource(request, { peer, clock, stallTimeoutMs, signal });
      return await this.#o.upload(peer, session, source, signal);
    } finally {
      cancelBeat();
    }
  }

  /** The pinned peer at the other end; throws why it is none. Asked for each request: a pin may have changed. */
  #peerOf(socket: TLSSocket): Peer {
    const leaf = socket.getPeerX509Certificate();
    if (!leaf) throw certificateMissing();
    const siteId = claimedSite(leaf);
    if (siteId === undefined) {
      throw peerFailure('PEER_AUTHORITY_WRONG', 'the certificate shown is not that of a site');
    }
    const peer = this.#o.peers.get(siteId);
    const authority = peer && certificateFrom(peer.caCertificate);
    if (!peer || !authority) {
      throw peerFailure('PEER_UNKNOWN', `site ${siteId} is not paired with ${this.#o.identity.name}`, {
        context: { siteId },
      });
    }
    const fault = faultOfLeaf(leaf, authority, siteId, this.#o.clock.wallMs());
    if (fault) throw fault;
    this.#recognise(socket, peer);
    if (peer.revokedAtMs !== undefined) throw revoked(peer);
    return peer;
  }

  #recognise(socket: TLSSocket, peer: Peer): void {
    if (!this.#recognised.has(socket)) socket.once('close', () => this.#recognised.delete(socket));
    this.#recognised.set(socket, peer.siteId);
  }

  #isOfRevoked(socket: Socket): boolean {
    const siteId = this.#recognised.get(socket as TLSSocket);
    return siteId !== undefined && this.#o.peers.get(siteId)?.revokedAtMs !== undefined;
  }

  #hello(): Json {
    return {
      siteId: this.#o.identity.siteId,
      version: WARMSITE_VERSION,
      protocol: PROTOCOL,
      wallMs: this.#o.clock.wallMs(),
      startId: this.#startId,
    };
  }

  #body(request: IncomingMessage, limitBytes: number, from: string): Promise<Json> {
    return withTimeout(
      this.#o.clock,
      LIMIT.callBodyMs,
      () => readJson(request, limitBytes, from),
      () => peerFailure('PEER_TIMEOUT', `the body of the call took more than ${LIMIT.callBodyMs} ms`),
    );
  }

  #send(request: IncomingMessage, response: ServerResponse, status: number, body: object): void {
    if (response.destroyed || response.headersSent) return;
    const bytes = Buffer.from(JSON.stringify(body));
    if (this.#isOfRevoked(request.socket)) response.shouldKeepAlive = false;
    response.writeHead(status, {
      'content-type': 'application/json',
      'content-length': bytes.length,
      [HEADER.protocol]: PROTOCOL,
      [HEADER.version]: WARMSITE_VERSION,
    });
    response.end(bytes);
    if (request.complete) return;
    // The peer is still sending. Closing now would reset the connection and could destroy the answer on its way:
    // what comes is dropped until the peer has read it and hangs up, but not for long.
    request.resume();
    const cancel = this.#o.clock.after(LIMIT.lingerMs, () => request.socket.destroy());
    request.socket.once('close', cancel);
    request.once('end', cancel);
  }
}

function serverOptions(leaf: Leaf): ServerOptions {
  return {
    ...tlsOptions(leaf),
    requestCert: true,
    // A stranger must be able to redeem a token; every request is authorised by its certificate, see #peerOf.
    rejectUnauthorized: false,
    handshakeTimeout: LIMIT.handshakeMs,
    maxHeaderSize: LIMIT.headBytes,
    headersTimeout: LIMIT.headMs,
    // Uploads take as long as they take; bodies of calls have their own limit.
    requestTimeout: 0,
    keepAliveTimeout: LIMIT.idleConnectionMs,
    connectionsCheckingInterval: 5_000,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
  };
}

function tlsOptions(leaf: Leaf) {
  return {
    key: leaf.key,
    cert: leaf.cert,
    minVersion: 'TLSv1.3' as const,
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

function checkProtocol(request: IncomingMessage): void {
  const text = request.headers[HEADER.protocol];
  const protocol = typeof text === 'string' && /^[1-9]\d{0,5}$/.test(text) ? Number(text) : undefined;
  if (protocol === undefined) {
    throw peerFailure('PEER_PROTOCOL_INVALID', 'the request does not say which protocol it speaks');
  }
  if (protocol > PROTOCOL) {
    throw peerFailure(
      'PEER_PROTOCOL_NEWER',
      `protocol ${protocol} was asked for; known here is ${PROTOCOL}`,
      {
        context: { protocol, known: PROTOCOL },
      },
    );
  }
}

function heartbeatOf(request: IncomingMessage): number {
  const text = request.headers[HEADER.heartbeat];
  const asked = typeof text === 'string' && /^\d{1,9}$/.test(text) ? Number(text) : STALL_TIMEOUT_MS / 3;
  return Math.min(Math.max(asked, LIMIT.heartbeatMinMs), LIMIT.heartbeatMaxMs);
}

function certificateMissing(): Failure {
  return peerFailure('PEER_CERTIFICATE_MISSING', 'the connection shows no certificate');
}

function revoked(peer: Peer): Failure {
  return peerFailure('PEER_REVOKED', `${peer.name} has been revoked here`, {
    context: { siteId: peer.siteId },
  });
}
