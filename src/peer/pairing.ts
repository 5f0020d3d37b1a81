import { createHash, timingSafeEqual, type X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import type { Json } from '../lib/canonical-json.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import { isId, newId, type Random } from '../lib/random.ts';
import { loadRecord, type RecordKind, storeRecord } from '../lib/records.ts';
import { faultOfLeaf } from './certificate-check.ts';
import { certificateFrom, fingerprintOf } from './certificates.ts';
import { peerFailure } from './errors.ts';
import type { SiteIdentity } from './identity.ts';
import { type Introduction, introduce, peerFromIntroduction } from './introduction.ts';
import { encodeToken } from './pairing-token.ts';
import { isPeerAddress, type Peer, type PeerAddress } from './peer.ts';
import type { PeerDirectory } from './peer-directory.ts';

export const TOKEN_LIFETIME_MAX_MS = 15 * 60 * 1000;

/** How long a token is remembered after its end, so that a late use is told from a wrong token. */
const MEMORY_MS = 30 * 24 * 60 * 60 * 1000;

const SECRET_BYTES = 32;

/** A token as the issuing site remembers it, in `pairing/<tokenId>.json`: without its secret. */
interface TokenRecord {
  readonly tokenId: string;
  /** SHA-256 of the secret, hexadecimal. */
  readonly secretHash: string;
  /** What the token says of where this site listens. */
  readonly address: PeerAddress;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly usedAtMs?: number;
  readonly usedBySiteId?: string;
}

const TOKEN_KIND: RecordKind<TokenRecord> = {
  record: 'pairing-token',
  version: 1,
  accepts(value): value is TokenRecord {
    const record = value as Partial<TokenRecord> | null;
    return (
      typeof record === 'object' &&
      record !== null &&
      typeof record.tokenId === 'string' &&
      isId(record.tokenId) &&
      typeof record.secretHash === 'string' &&
      /^[0-9a-f]{64}$/.test(record.secretHash) &&
      isPeerAddress(record.address) &&
      Number.isSafeInteger(record.issuedAtMs) &&
      Number.isSafeInteger(record.expiresAtMs) &&
      (record.usedAtMs === undefined || Number.isSafeInteger(record.usedAtMs)) &&
      (record.usedBySiteId === undefined || typeof record.usedBySiteId === 'string')
    );
  },
};

/** Somebody held a true token that had been used before: one of the two uses may be a thief's. */
export interface TokenReuse {
  readonly tokenId: string;
  /** Who used it first; undefined if that use was broken off. */
  readonly usedBySiteId: string | undefined;
  readonly usedAtMs: number | undefined;
  /** Who tries now, by its own word. */
  readonly triedBySiteId: string | undefined;
}

export interface PairingOptions {
  readonly identity: SiteIdentity;
  readonly peers: PeerDirectory;
  readonly files: FileSystem;
  readonly dataDirectory: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Called for each use of a token after the first; people of this site must hear of it. */
  readonly onTokenReuse: (reuse: TokenReuse) => void;
  /** Called after a peer was pinned. */
  readonly onPaired?: (peer: Peer) => void;
}

/** The issuing side of pairing: makes tokens and takes each of them once. */
export class Pairing {
  readonly #o: PairingOptions;
  readonly #directory: string;
  /** Tokens whose first use is under way or done in this process. */
  readonly #claimed = new Set<string>();
  /** Ends of the tokens that this process issued, on the clock that nobody can set back. */
  readonly #deadlinesMs = new Map<string, number>();

  constructor(options: PairingOptions) {
    this.#o = options;
    this.#directory = join(options.dataDirectory, 'pairing');
  }

  /**
   * A new token, remembered durably. `address` is where the other site reaches this one. PEER_TOKEN_LIFETIME for
   * more than 15 minutes.
   */
  async issueToken(o: { lifetimeMs: number; address: PeerAddress }): Promise<string> {
    if (!(o.lifetimeMs > 0 && o.lifetimeMs <= TOKEN_LIFETIME_MAX_MS)) {
      throw peerFailure('PEER_TOKEN_LIFETIME', `a pairing token cannot live for ${o.lifetimeMs} ms`);
    }
    await this.#forgetOldTokens();
    const { identity, clock, random } = this.#o;
    const secret = random.bytes(SECRET_BYTES);
    const issuedAtMs = clock.wallMs();
    const record: TokenRecord = {
      tokenId: newId(clock, random),
      secretHash: hashOf(secret).toString('hex'),
      address: { host: o.address.host, port: o.address.port },
      issuedAtMs,
      expiresAtMs: issuedAtMs + Math.floor(o.lifetimeMs),
    };
    this.#deadlinesMs.set(record.tokenId, clock.monotonicMs() + o.lifetimeMs);
    await this.#store(record);
    return encodeToken({
      tokenId: record.tokenId,
      address: record.address,
      siteId: identity.siteId,
      fingerprint: fingerprintOf(authorityOf(identity.caCertificate)),
      secret,
    });
  }

  /**
   * Answers a redemption: spends the token, pins the sender, introduces this site. `presented` is the certificate
   * of the connection on which `body` came. The token is spent durably before anything is pinned.
   */
  async accept(body: Json, presented: X509Certificate): Promise<Introduction> {
    const { identity, peers, clock } = this.#o;
    const { tokenId, secret, introduction } = (body ?? {}) as Record<string, unknown>;
    const record = await this.#provenToken(tokenId, secret);
    const triedBySiteId = claimOf(introduction);
    if (record.usedAtMs !== undefined || this.#claimed.has(record.tokenId)) {
      const { usedBySiteId, usedAtMs } = record;
      this.#o.onTokenReuse({ tokenId: record.tokenId, usedBySiteId, usedAtMs, triedBySiteId });
      throw peerFailure('PEER_TOKEN_USED', 'this pairing token has been used before');
    }
    if (this.#isExpired(record)) {
      throw peerFailure('PEER_TOKEN_EXPIRED', 'the lifetime of this pairing token is over');
    }
    const nowMs = clock.wallMs();
    const occasion = { audience: identity.siteId, tokenId: record.tokenId };
    const peer = peerFromIntroduction(introduction, occasion, nowMs);
    if (peer.siteId === identity.siteId) {
      throw peerFailure('PEER_SELF', 'a site cannot be paired with itself');
    }
    const fault = faultOfLeaf(presented, authorityOf(peer.caCertificate), peer.siteId, nowMs);
    if (fault) throw fault;
    peers.assertPinnable(peer);
    // From here to the durable mark nothing is awaited before the claim: two redemptions cannot both pass.
    this.#claimed.add(record.tokenId);
    await this.#store({ ...record, usedAtMs: nowMs, usedBySiteId: peer.siteId });
    await peers.add(peer);
    this.#o.onPaired?.(peer);
    return introduce(identity, record.address, { audience: peer.siteId, tokenId: record.tokenId });
  }

  /** The record of a token whose secret was shown; PEER_TOKEN_WRONG tells nothing about which half was wrong. */
  async #provenToken(tokenId: unknown, secret: unknown): Promise<TokenRecord> {
    const shown = hashOf(Buffer.from(typeof secret === 'string' ? secret : '', 'base64url'));
    const record =
      typeof tokenId === 'string' && isId(tokenId)
        ? await loadRecord(this.#o.files, this.#pathOf(tokenId), TOKEN_KIND)
        : undefined;
    const expected = record ? Buffer.from(record.secretHash, 'hex') : Buffer.alloc(32);
    if (!timingSafeEqual(shown, expected) || record === undefined) {
      throw peerFailure('PEER_TOKEN_WRONG', 'this site issued no such pairing token');
    }
    return record;
  }

  #isExpired(record: TokenRecord): boolean {
    const nowMs = this.#o.clock.wallMs();
    const deadlineMs = this.#deadlinesMs.get(record.tokenId) ?? Number.POSITIVE_INFINITY;
    return (
      nowMs < record.issuedAtMs || nowMs >= record.expiresAtMs || this.#o.clock.monotonicMs() >= deadlineMs
    );
  }

  async #forgetOldTokens(): Promise<void> {
    const nowMs = this.#o.clock.wallMs();
    for (const name of (await this.#o.files.list(this.#directory)) ?? []) {
      const tokenId = name.replace(/\.json$/, '');
      if (!isId(tokenId)) continue;
      const record = await loadRecord(this.#o.files, this.#pathOf(tokenId), TOKEN_KIND);
      if (record === undefined || nowMs < record.expiresAtMs + MEMORY_MS) continue;
      await this.#o.files.remove(this.#pathOf(tokenId));
      this.#claimed.delete(tokenId);
      this.#deadlinesMs.delete(tokenId);
    }
  }

  async #store(record: TokenRecord): Promise<void> {
    await this.#o.files.makeDirectory(this.#directory);
    await storeRecord(this.#o.files, this.#pathOf(record.tokenId), TOKEN_KIND, record);
  }

  #pathOf(tokenId: string): string {
    return join(this.#directory, `${tokenId}.json`);
  }
}

function hashOf(secret: Buffer): Buffer {
  return createHash('sha256').update(secret).digest();
}

function claimOf(introduction: unknown): string | undefined {
  const siteId = (introduction as Partial<Introduction> | null | undefined)?.siteId;
  return typeof siteId === 'string' && isId(siteId) ? siteId : undefined;
}

function authorityOf(pem: string): X509Certificate {
  const certificate = certificateFrom(pem);
  if (certificate) return certificate;
  throw peerFailure('PEER_INTRODUCTION_INVALID', 'there is no certificate where an authority is expected');
}
