import type { PeerView } from '../../api/index.ts';
import { type Clock, sleep } from '../../lib/clock.ts';
import { type Failure, isFailure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Hello, Peer, PeerClient, PeerDirectory } from '../../peer/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';

export const HEARTBEAT_EVERY_MS = 10_000;
/** A peer that has not answered for this long raises an alert. */
export const SILENT_AFTER_MS = 60_000;
export const SKEW_WARNING_MS = 5_000;
/** Of two sites that pair one knows the other a moment earlier: a link that is new is tried again this soon. */
const NEW_EVERY_MS = 1_000;

interface Link {
  readonly peer: Peer;
  readonly client: PeerClient;
  readonly stop: AbortController;
  ended: Promise<void>;
  /** Monotonic; when the link was made, until the first answer. */
  lastSeenMs: number;
  lastSeenWallMs: number | undefined;
  hello: Hello | undefined;
  isReachable: boolean | undefined;
}

export interface PeerLinksOptions {
  readonly peers: PeerDirectory;
  /** A client of this peer; closed when the peer has changed or is no longer trusted. */
  readonly connect: (peer: Peer) => PeerClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly alerts: AlertSink;
  /** Called when a peer answers after it did not, or its site has been started again, however soon. */
  readonly onReachable: (siteId: string) => void;
}

/** A connection to each paired site, and a heartbeat over it: who answers, how late, and by which clock. */
export class PeerLinks {
  readonly #o: PeerLinksOptions;
  readonly #links = new Map<string, Link>();
  readonly #unwatch: () => void;

  constructor(o: PeerLinksOptions) {
    this.#o = o;
    for (const peer of o.peers.list()) this.#connect(peer);
    this.#unwatch = o.peers.watch((peer) => this.#connect(peer));
  }

  /** Throws SITE_PEER_UNKNOWN for a site that is not paired or was revoked. */
  client(siteId: string): PeerClient {
    const link = this.#links.get(siteId);
    if (link) return link.client;
    throw controlFailure('SITE_PEER_UNKNOWN', `site ${siteId} is not paired with this one`, {
      context: { siteId },
    });
  }

  views(): PeerView[] {
    return this.#o.peers.list().map((peer) => this.#viewOf(peer));
  }

  view(siteId: string): PeerView | undefined {
    const peer = this.#o.peers.get(siteId);
    return peer && this.#viewOf(peer);
  }

  async close(): Promise<void> {
    this.#unwatch();
    await Promise.all([...this.#links.keys()].map((siteId) => this.#disconnect(siteId)));
  }

  /** Makes the link anew: a peer may have another address, or be revoked. */
  #connect(peer: Peer): void {
    void this.#disconnect(peer.siteId);
    if (peer.revokedAtMs !== undefined) return;
    const { connect, clock } = this.#o;
    const link: Link = {
      peer,
      client: connect(peer),
      stop: new AbortController(),
      ended: Promise.resolve(),
      lastSeenMs: clock.monotonicMs(),
      lastSeenWallMs: undefined,
      hello: undefined,
      isReachable: undefined,
    };
    this.#links.set(peer.siteId, link);
    link.ended = this.#beat(link);
  }

  #disconnect(siteId: string): Promise<void> {
    const link = this.#links.get(siteId);
    if (!link) return Promise.resolve();
    this.#links.delete(siteId);
    link.stop.abort();
    link.client.close();
    for (const about of ['silent', 'skew']) this.#o.alerts.clear(`peer-${about}:${siteId}`);
    return link.ended;
  }

  /** Never rejects; ends when the link does. */
  async #beat(link: Link): Promise<void> {
    const { signal } = link.stop;
    while (!signal.aborted) {
      let pauseMs = HEARTBEAT_EVERY_MS;
      try {
        this.#seen(link, await link.client.hello({ signal, timeoutMs: HEARTBEAT_EVERY_MS }));
      } catch (error) {
        if (this.#isNew(link) && isFailure(error, 'PEER_UNKNOWN')) pauseMs = NEW_EVERY_MS;
        else if (!signal.aborted) this.#missed(link, error);
      }
      try {
        await sleep(this.#o.clock, pauseMs, signal);
      } catch {
        return; // The link was ended.
      }
    }
  }

  #isNew({ lastSeenWallMs, lastSeenMs }: Link): boolean {
    return lastSeenWallMs === undefined && this.#o.clock.monotonicMs() - lastSeenMs < HEARTBEAT_EVERY_MS;
  }

  #seen(link: Link, hello: Hello): void {
    const { siteId, name } = link.peer;
    const { alerts } = this.#o;
    // Between two heartbeats a site is started again without being missed.
    const isAnother = link.hello?.startId !== hello.startId;
    link.hello = hello;
    link.lastSeenMs = this.#o.clock.monotonicMs();
    link.lastSeenWallMs = this.#o.clock.wallMs();
    const wasReachable = link.isReachable;
    link.isReachable = true;
    if (wasReachable !== true || isAnother) {
      this.#o.log.info('peer.reachable', { siteId, name, roundTripMs: hello.roundTripMs });
      alerts.clear(`peer-silent:${siteId}`);
      this.#o.onReachable(siteId);
    }
    // Half of the round trip is what the measurement may be off by.
    if (Math.abs(hello.skewMs) - hello.roundTripMs / 2 <= SKEW_WARNING_MS) {
      alerts.clear(`peer-skew:${siteId}`);
      return;
    }
    const seconds = (hello.skewMs / 1000).toFixed(1);
    const said = `the clock of ${name} is ${seconds} s away from the one here`;
    alerts.raise(
      `peer-skew:${siteId}`,
      'warning',
      controlFailure('SITE_CLOCK_SKEW', said, { context: { siteId, skewMs: hello.skewMs } }),
    );
  }

  #missed(link: Link, error: unknown): void {
    const { siteId, name } = link.peer;
    if (link.isReachable !== false) {
      this.#o.log.warn('peer.unreachable', { siteId, name, reason: messageOf(error) });
    }
    link.isReachable = false;
    const silentMs = this.#o.clock.monotonicMs() - link.lastSeenMs;
    // A refusal is an answer, and says more than silence.
    const isRefusal = isFailure(error) && error.kind === 'refused';
    if (silentMs < SILENT_AFTER_MS && !isRefusal) return;
    const failure: Failure = isRefusal
      ? failureOf(error)
      : controlFailure(
          'SITE_PEER_SILENT',
          `${name} has not answered for ${Math.round(silentMs / 1000)} s: ${messageOf(error)}`,
          { context: { siteId } },
        );
    this.#o.alerts.raise(`peer-silent:${siteId}`, 'critical', failure);
  }

  #viewOf(peer: Peer): PeerView {
    const link = this.#links.get(peer.siteId);
    const hello = link?.hello;
    const presence = link?.isReachable === undefined ? 'unknown' : link.isReachable ? 'reachable' : 'silent';
    return {
      siteId: peer.siteId,
      name: peer.name,
      address: peer.address,
      pairedAtMs: peer.pairedAtMs,
      ...(peer.revokedAtMs === undefined ? {} : { revokedAtMs: peer.revokedAtMs }),
      presence,
      ...(link?.lastSeenWallMs === undefined ? {} : { lastSeenAtMs: link.lastSeenWallMs }),
      ...(hello ? { skewMs: hello.skewMs, roundTripMs: hello.roundTripMs, version: hello.version } : {}),
    };
  }
}
