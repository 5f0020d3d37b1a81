import { hostname } from 'node:os';
import type { PeerView, SiteKey } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Random } from '../../lib/random.ts';
import {
  keyIdOfPem,
  type Pairing,
  type Peer,
  type PeerAddress,
  type PeerDirectory,
  redeemToken,
  type SiteIdentity,
  TOKEN_LIFETIME_MAX_MS,
} from '../../peer/index.ts';
import { bringerOf, type Replicas } from '../../replica/index.ts';
import { targetOf } from '../../replication/index.ts';
import type { Audit } from '../base/audit.ts';
import type { SiteSettings } from '../base/site-files.ts';
import { controlFailure } from '../errors.ts';
import type { Machines } from '../machines/machines.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { Forwards } from '../replicas/forwards.ts';

interface PeerActsTools {
  readonly identity: SiteIdentity;
  readonly settings: SiteSettings;
  readonly peers: PeerDirectory;
  readonly pairing: Pairing;
  readonly links: PeerLinks;
  readonly machines: Machines;
  readonly replicas: Replicas;
  readonly forwards: Forwards;
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

  /** The public keys that this site signs with, and that it has pinned of others, also of those that it trusts no more. */
  keys(): SiteKey[] {
    const { identity, peers } = this.#o;
    const keyOf = ({ siteId, name, signingKey }: Peer | SiteIdentity, whose: SiteKey['whose']): SiteKey[] => {
      const keyId = keyIdOfPem(signingKey);
      return keyId === undefined ? [] : [{ siteId, name, whose, keyId, signingKey }];
    };
    return [...keyOf(identity, 'own'), ...peers.list().flatMap((peer) => keyOf(peer, 'peer'))];
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

  /**
   * Ends the trust in another site: from now on it is refused, what is under way with it ends, and its connections are
   * closed. Durable on return. Throws SITE_PEER_IN_USE, unless `force` is given, while machines are protected to it or
   * replicas come from it. Repeating it is harmless.
   */
  remove(actor: string, reference: string, force: boolean): Promise<PeerView> {
    const { peers, links, audit, clock } = this.#o;
    const { siteId, name } = this.#find(reference);
    const act = { actor, act: 'peer.remove', subject: siteId, details: { name, force } };
    return audit.acting(act, async () => {
      if (!force) this.#refuseInUse(siteId, name);
      await peers.revoke(siteId, clock.wallMs());
      return links.view(siteId)!;
    });
  }

  /** Reaches another site at this address from now on; durable on return. A site that was removed is SITE_PEER_UNKNOWN. */
  changeAddress(actor: string, reference: string, address: PeerAddress): Promise<PeerView> {
    const { peers, links, audit } = this.#o;
    const { siteId, name, revokedAtMs } = this.#find(reference);
    if (revokedAtMs !== undefined) {
      throw controlFailure('SITE_PEER_UNKNOWN', `${name} was removed here`, { context: { siteId } });
    }
    const details = { name, host: address.host, port: address.port };
    return audit.acting({ actor, act: 'peer.address', subject: siteId, details }, async () => {
      await peers.setAddress(siteId, address);
      return links.view(siteId)!;
    });
  }

  #find(reference: string): PeerView {
    const found = this.list().filter(({ siteId, name }) => siteId === reference || name === reference);
    const context = { reference };
    if (found.length > 1) {
      throw controlFailure('SITE_PEER_UNCLEAR', `${found.length} paired sites are called ${reference}`, {
        context,
        hint: 'Give the id that `warmsite site peers` shows.',
      });
    }
    if (found[0]) return found[0];
    throw controlFailure('SITE_PEER_UNKNOWN', `there is no paired site ${reference}`, {
      context,
      hint: 'List the paired sites with `warmsite site peers`.',
    });
  }

  #refuseInUse(siteId: string, name: string): void {
    const sent = this.#o.machines
      .list()
      .map(({ machine }) => machine.record)
      .filter(({ protection }) => protection && targetOf(protection, siteId))
      .map((record) => record.name);
    const received = this.#o.replicas
      .list()
      .map(({ record }) => record)
      .filter((record) => bringerOf(record) === siteId)
      .map(({ machineName }) => machineName);
    const forwarded = this.#o.forwards.namesTo(siteId);
    if (sent.length + received.length + forwarded.length === 0) return;
    const stops = [
      ...(sent.length > 0 ? [`the copies of ${sent.join(', ')} go there`] : []),
      ...(forwarded.length > 0 ? [`the points of ${forwarded.join(', ')} are forwarded there`] : []),
      ...(received.length > 0 ? [`the replicas of ${received.join(', ')} come from there`] : []),
    ];
    throw controlFailure('SITE_PEER_IN_USE', `${name} is in use: ${stops.join('; ')}`, {
      context: { siteId, protectedMachines: sent.join(', '), replicas: received.join(', ') },
    });
  }

  /** Where the other site reaches this one: as asked, as set up, or as this host is called. */
  #ownAddress(host: string | undefined): PeerAddress {
    const { advertisedHost, peer } = this.#o.settings;
    const isAny = peer.host === '0.0.0.0' || peer.host === '::';
    return { host: host ?? advertisedHost ?? (isAny ? hostname() : peer.host), port: this.#o.port };
  }
}
