import { hostname } from 'node:os';
import type { PeerView } from '../api/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { Random } from '../lib/random.ts';
import {
  type Pairing,
  type PeerAddress,
  type PeerDirectory,
  redeemToken,
  type SiteIdentity,
  TOKEN_LIFETIME_MAX_MS,
} from '../peer/index.ts';
import type { Audit } from './audit.ts';
import type { PeerLinks } from './peer-links.ts';
import type { SiteSettings } from './site-files.ts';

interface PeerActsTools {
  readonly identity: SiteIdentity;
  readonly settings: SiteSettings;
  readonly peers: PeerDirectory;
  readonly pairing: Pairing;
  readonly links: PeerLinks;
  readonly audit: Audit;
  readonly clock: Clock;
  readonly random: Random;
  /** The port at which other sites are served. */
  readonly port: number;
}

/** What a person does with other sites. Tokens never reach the audit log. */
export class PeerActs {
  readonly #o: PeerActsTools;

  constructor(o: PeerActsTools) {
    this.#o = o;
  }

  list(): PeerView[] {
    return this.#o.links.views();
  }

  issueToken(
    actor: string,
    o: { lifetimeMs?: number; host?: string },
  ): Promise<{ token: string; expiresAtMs: number }> {
    const lifetimeMs = o.lifetimeMs ?? TOKEN_LIFETIME_MAX_MS;
    const address = this.#ownAddress(o.host);
    return this.#o.audit.acting(
      { actor, act: 'site.token', details: { lifetimeMs, ...address } },
      async () => {
        const expiresAtMs = this.#o.clock.wallMs() + lifetimeMs;
        return { token: await this.#o.pairing.issueToken({ lifetimeMs, address }), expiresAtMs };
      },
    );
  }

  redeem(actor: string, o: { token: string; host?: string }): Promise<PeerView> {
    const { identity, peers, clock, random } = this.#o;
    const ownAddress = this.#ownAddress(o.host);
    return this.#o.audit.acting({ actor, act: 'site.pair', details: { ownAddress } }, async () => {
      const peer = await redeemToken({ token: o.token, identity, peers, ownAddress, clock, random });
      return this.#o.links.view(peer.siteId)!;
    });
  }

  /** Where the other site reaches this one: as asked, as set up, or as this host is called. */
  #ownAddress(host: string | undefined): PeerAddress {
    const { advertisedHost, peer } = this.#o.settings;
    const isAny = peer.host === '0.0.0.0' || peer.host === '::';
    return { host: host ?? advertisedHost ?? (isAny ? hostname() : peer.host), port: this.#o.port };
  }
}
