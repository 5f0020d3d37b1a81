import { X509Certificate } from 'node:crypto';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { type Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import type { Json } from '../lib/canonical-json.ts';
import { type Clock, cancelled, throwIfAborted } from '../lib/clock.ts';
import { Failure, messageOf, systemCodeOf } from '../lib/errors.ts';
import { hostPort } from '../lib/host-port.ts';
import { WARMSITE_VERSION } from '../lib/records.ts';
import { readJson } from './body.ts';
import { faultOfLeaf } from './certificate-check.ts';
import { certificateFrom } from './certificates.ts';
import { peerFailure } from './errors.ts';
import { failureFromWire } from './failure-wire.ts';
import type { Leaf } from './leaf-keeper.ts';
import type { Peer } from './peer.ts';
import { HEADER, LIMIT, PROTOCOL, TCP_KEEP_ALIVE_MS } from './protocol.ts';

/** Whom to talk to: as much of a peer as a connection needs. */
export type Target = Pick<Peer, 'siteId' | 'name' | 'address' | 'caCertificate'>;

/** A request to `target` that has not sent its body yet. TLS trusts the target's own authority and nothing else. */
export function openRequest(
  target: Target,
  o: {
    method: string;
    path: string;
    leaf: Leaf;
    clock: Clock;
    agent: Agent;
    headers: Readonly<Record<string, string | number>>;
  },
): ClientRequest {
  const options: RequestOptions = {
    agent: o.agent,
    method: o.method,
    path: o.path,
    host: target.address.host,
    port: target.address.port,
    headers: { ...o.headers, [HEADER.protocol]: PROTOCOL, [HEADER.version]: WARMSITE_VERSION },
    maxHeaderSize: LIMIT.headBytes,
    minVersion: 'TLSv1.3',
    ca: target.caCertificate,
    key: o.leaf.key,
    cert: o.leaf.cert,
    rejectUnauthorized: true,
    checkServerIdentity: (_host, shown) =>
      faultOfServer(new X509Certificate(shown.raw), target, o.clock.wallMs()),
  };
  return httpsRequest(options);
}

/** An agent that proves both keys on each connection: sessions are not resumed. */
export function agentOptions(maxSockets: number) {
  return {
    keepAlive: true,
    maxSockets,
    maxCachedSessions: 0,
    keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
    noDelay: true,
  };
}

/** One call: sends `body`, returns what the peer answered or throws what it reported. */
export async function exchange(
  target: Target,
  o: {
    method: 'GET' | 'POST';
    path: string;
    body: Json;
    leaf: Leaf;
    clock: Clock;
    agent: Agent;
    signal: AbortSignal;
  },
): Promise<Json> {
  throwIfAborted(o.signal);
  const bytes = o.method === 'GET' ? Buffer.alloc(0) : Buffer.from(JSON.stringify(o.body));
  if (bytes.length > LIMIT.callBytes) {
    throw peerFailure('PEER_BODY_TOO_LARGE', `a call of ${bytes.length} bytes exceeds ${LIMIT.callBytes}`);
  }
  const headers = { 'content-type': 'application/json', 'content-length': bytes.length };
  const request = openRequest(target, { ...o, headers });
  const onAbort = (): void => void request.destroy(cancelled(o.signal));
  o.signal.addEventListener('abort', onAbort, { once: true });
  try {
    const head = headOf(request, target);
    request.end(bytes);
    const answer = await readAnswer(await head, target);
    // An answer that came before the whole body was sent leaves a connection that cannot be used again.
    if (!request.writableFinished) request.destroy();
    return answer;
  } catch (error) {
    request.destroy();
    throwIfAborted(o.signal);
    throw error;
  } finally {
    o.signal.removeEventListener('abort', onAbort);
  }
}

/** Resolves when the head of the answer is here; rejects with a Failure. Later errors of the request are dropped. */
export function headOf(request: ClientRequest, target: Target): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    let secured = false;
    request.once('socket', (socket) => {
      if (request.reusedSocket) secured = true;
      else socket.once('secureConnect', () => (secured = true));
    });
    request.once('response', resolve);
    // Stays for the life of the request: once the answer is here, its own stream tells of a lost connection.
    request.on('error', (error) => reject(connectionFailure(error, target, secured)));
  });
}

/** The result that an answer carries; throws the failure that it carries. */
export async function readAnswer(response: IncomingMessage, target: Target): Promise<Json> {
  const context = { remote: target.name, status: response.statusCode ?? 0 };
  if (response.headers[HEADER.protocol] === undefined) {
    response.destroy();
    throw peerFailure('PEER_PROTOCOL_INVALID', `what answered at ${where(target)} is not a site port`, {
      context,
    });
  }
  const body = await readJson(response, LIMIT.callBytes, target.name);
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw peerFailure('PEER_PROTOCOL_INVALID', `${target.name} gave an answer in a form unknown here`, {
      context,
    });
  }
  const { result, failure } = body as { readonly [key: string]: Json | undefined };
  if (response.statusCode === 200 && result !== undefined) return result;
  throw failureFromWire(failure, target.name);
}

function faultOfServer(shown: X509Certificate, target: Target, nowMs: number): Failure | undefined {
  const authority = certificateFrom(target.caCertificate);
  return authority
    ? faultOfLeaf(shown, authority, target.siteId, nowMs)
    : peerFailure('PEER_AUTHORITY_WRONG', `no authority is pinned for ${target.name}`);
}

const AWAY = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EHOSTDOWN',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
]);

/** Codes by which OpenSSL (and Node) refuse a chain; see «X509 certificate error codes» in Node's `tls`. */
const DATES = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID']);
const DISTRUST =
  /^(UNABLE_TO_(GET_ISSUER_CERT|GET_ISSUER_CERT_LOCALLY|VERIFY_LEAF_SIGNATURE)|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|CERT_(SIGNATURE_FAILURE|UNTRUSTED|REJECTED|CHAIN_TOO_LONG)|INVALID_(CA|PURPOSE)|PATH_LENGTH_EXCEEDED|ERR_TLS_CERT_ALTNAME.*)$/;

/** What an error of a connection means; `secured` = it came after the TLS handshake. */
export function connectionFailure(error: unknown, target: Target, secured: boolean): Failure {
  if (error instanceof Failure) return error;
  const system = systemCodeOf(error) ?? '';
  const details = { context: { remote: target.name, address: where(target), system }, cause: error };
  const said = messageOf(error);
  if (AWAY.has(system))
    return peerFailure('PEER_UNREACHABLE', `${where(target)} cannot be reached: ${said}`, details);
  if (DATES.has(system)) {
    return peerFailure(
      'PEER_CERTIFICATE_EXPIRED',
      `the certificate of ${target.name} is not valid now`,
      details,
    );
  }
  if (DISTRUST.test(system)) {
    return peerFailure(
      'PEER_AUTHORITY_WRONG',
      `what answers at ${where(target)} is not ${target.name}`,
      details,
    );
  }
  if (system.startsWith('HPE_')) {
    return peerFailure(
      'PEER_PROTOCOL_INVALID',
      `${where(target)} does not speak HTTP as agreed: ${said}`,
      details,
    );
  }
  if (!secured && (system.startsWith('ERR_SSL_') || system === 'EPROTO')) {
    return peerFailure('PEER_TLS_FAILED', `no TLS 1.3 connection with ${where(target)}: ${said}`, details);
  }
  return peerFailure('PEER_CONNECTION_LOST', `the connection with ${target.name} was lost: ${said}`, details);
}

export function where(target: Target): string {
  return hostPort(target.address);
}
