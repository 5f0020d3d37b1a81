import { Agent } from 'node:https';
import type { Json } from '../lib/canonical-json.ts';
import { type Clock, withTimeout } from '../lib/clock.ts';
import { isId, type Random } from '../lib/random.ts';
import { peerFailure } from './errors.ts';
import { agentOptions, exchange, where } from './exchange.ts';
import type { SiteIdentity } from './identity.ts';
import { LeafKeeper } from './leaf-keeper.ts';
import type { Peer } from './peer.ts';
import { CALL_TIMEOUT_MS, isCallName, PATH, STALL_TIMEOUT_MS } from './protocol.ts';
import { sendUpload, type UploadChunk } from './upload-sender.ts';

const CALL_CONNECTIONS_MAX = 8;

/** What a peer says of itself; the sign that it lives. */
export interface Hello {
  readonly siteId: string;
  /** Program version of the peer. */
  readonly version: string;
  /** The newest protocol that the peer speaks. */
  readonly protocol: number;
  /** Another one whenever the peer has been started; absent where its program does not tell. */
  readonly startId?: string;
  /** Clock of the peer minus clock of this site; off by at most half of the round trip. */
  readonly skewMs: number;
  readonly roundTripMs: number;
}

/**
 * Talks to one peer. Calls share a few kept connections; each upload has its own.
 *
 * Every method throws, beside what the peer's handler reports: PEER_UNREACHABLE, PEER_TLS_FAILED,
 * PEER_AUTHORITY_WRONG, PEER_CERTIFICATE_EXPIRED, PEER_CONNECTION_LOST, PEER_TIMEOUT, PEER_PROTOCOL_INVALID,
 * PEER_PROTOCOL_NEWER, PEER_UNKNOWN, PEER_REVOKED, CANCELLED. After PEER_CONNECTION_LOST or PEER_TIMEOUT the peer
 * may or may not have done what was asked; nothing is repeated here.
 */
export class PeerClient {
  readonly #peer: Peer;
  readonly #clock: Clock;
  readonly #leaves: LeafKeeper;
  readonly #agent = new Agent(agentOptions(CALL_CONNECTIONS_MAX));
  readonly #closing = new AbortController();

  constructor(o: { identity: SiteIdentity; peer: Peer; clock: Clock; random: Random }) {
    this.#peer = o.peer;
    this.#clock = o.clock;
    this.#leaves = new LeafKeeper(o);
  }

  /** The answer of the peer's handler `name`. `timeoutMs` (30 s unless given) covers all from connecting on. */
  call(name: string, body: Json, o: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<Json> {
    return this.#exchange('POST', PATH.call + checkedName(name), body, o);
  }

  async hello(o: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<Hello> {
    const sentMs = this.#clock.monotonicMs();
    const sentWallMs = this.#clock.wallMs();
    const answer = await this.#exchange('GET', PATH.hello, null, o);
    const roundTripMs = this.#clock.monotonicMs() - sentMs;
    const { siteId, version, protocol, wallMs, startId } = (answer ?? {}) as Record<string, unknown>;
    if (
      siteId !== this.#peer.siteId ||
      typeof version !== 'string' ||
      typeof protocol !== 'number' ||
      typeof wallMs !== 'number' ||
      (startId !== undefined && !(typeof startId === 'string' && isId(startId)))
    ) {
      throw peerFailure('PEER_PROTOCOL_INVALID', `${this.#peer.name} did not say who it is`);
    }
    const skewMs = Math.round(wallMs - (sentWallMs + roundTripMs / 2));
    return {
      ...{ siteId: this.#peer.siteId, version: version.slice(0, 64), protocol, skewMs, roundTripMs },
      ...(startId === undefined ? {} : { startId }),
    };
  }

  /**
   * Streams `chunks` to the peer's upload handler and returns its answer, or throws it, as soon as there is one,
   * even if the source has more; the source is then told to end. PEER_STALLED when for `stallTimeoutMs` (30 s unless
   * given) the peer took no byte and gave no sign; a peer that is busy gives signs. Whatever fails, the caller asks
   * the peer how far it got before it starts again.
   */
  upload(
    session: string,
    chunks: AsyncIterable<UploadChunk>,
    o: { signal?: AbortSignal; stallTimeoutMs?: number } = {},
  ): Promise<Json> {
    this.#refuseRevoked();
    return sendUpload(this.#peer, checkedName(session), chunks, {
      leaf: this.#leaves.current(),
      clock: this.#clock,
      stallTimeoutMs: o.stallTimeoutMs ?? STALL_TIMEOUT_MS,
      signal: this.#joined(o.signal),
    });
  }

  /** Ends what is under way with PEER_CLOSED and lets go of all connections. */
  close(): void {
    this.#closing.abort(
      peerFailure('PEER_CLOSED', `the connections with ${this.#peer.name} were closed here`),
    );
    this.#agent.destroy();
  }

  #exchange(
    method: 'GET' | 'POST',
    path: string,
    body: Json,
    o: { timeoutMs?: number; signal?: AbortSignal },
  ): Promise<Json> {
    this.#refuseRevoked();
    const timeoutMs = o.timeoutMs ?? CALL_TIMEOUT_MS;
    return withTimeout(
      this.#clock,
      timeoutMs,
      (signal) =>
        exchange(this.#peer, {
          method,
          path,
          body,
          leaf: this.#leaves.current(),
          clock: this.#clock,
          agent: this.#agent,
          signal,
        }),
      () =>
        peerFailure('PEER_TIMEOUT', `${this.#peer.name} did not answer in ${timeoutMs} ms`, {
          context: { remote: this.#peer.name, address: where(this.#peer), timeoutMs },
        }),
      this.#joined(o.signal),
    );
  }

  #joined(signal: AbortSignal | undefined): AbortSignal {
    return signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal;
  }

  #refuseRevoked(): void {
    if (this.#peer.revokedAtMs === undefined) return;
    throw peerFailure('PEER_REVOKED', `${this.#peer.name} was revoked at this site`, {
      context: { siteId: this.#peer.siteId },
    });
  }
}

function checkedName(name: string): string {
  if (isCallName(name)) return name;
  throw peerFailure('PEER_PROTOCOL_INVALID', `«${name.slice(0, 80)}» cannot name a call or a session`);
}
