import { X509Certificate } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import type { Random } from '../lib/random.ts';
import { issueLeaf, LEAF_LIFETIME_MS } from './certificates.ts';
import type { SiteIdentity } from './identity.ts';
import { newPrivateKey, privatePem } from './keys.ts';

/** What this site shows in TLS: PEM texts as `node:tls` takes them. */
export interface Leaf {
  readonly key: string;
  /** The leaf's certificate, then the authority's. */
  readonly cert: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** A leaf with less than a third of its life left is replaced. */
const RENEW_BEFORE_END_MS = LEAF_LIFETIME_MS / 3;

/**
 * Holds the current leaf and issues the next one in time. Asked at every new connection, so that no timer can
 * be missed while a host is suspended, and a clock set back or forth is noticed at once.
 */
export class LeafKeeper {
  readonly #identity: SiteIdentity;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #hosts: readonly string[];
  #leaf: Leaf | undefined;

  /** `hosts`: see `issueLeaf`. */
  constructor(o: { identity: SiteIdentity; clock: Clock; random: Random; hosts?: readonly string[] }) {
    this.#identity = o.identity;
    this.#clock = o.clock;
    this.#random = o.random;
    this.#hosts = o.hosts ?? [];
  }

  /** A leaf that is valid now and for a while; the same object until it is renewed. */
  current(): Leaf {
    const nowMs = this.#clock.wallMs();
    const leaf = this.#leaf;
    if (leaf && nowMs >= leaf.notBeforeMs && nowMs < leaf.notAfterMs - RENEW_BEFORE_END_MS) return leaf;
    this.#leaf = this.#issue(nowMs);
    return this.#leaf;
  }

  #issue(nowMs: number): Leaf {
    const key = newPrivateKey(this.#random);
    const certificate = issueLeaf({
      siteId: this.#identity.siteId,
      leafKey: key,
      authorityKey: this.#identity.caKey,
      nowMs,
      random: this.#random,
      hosts: this.#hosts,
    });
    const parsed = new X509Certificate(certificate);
    return {
      key: privatePem(key),
      cert: certificate + this.#identity.caCertificate,
      notBeforeMs: parsed.validFromDate.getTime(),
      notAfterMs: parsed.validToDate.getTime(),
    };
  }
}
