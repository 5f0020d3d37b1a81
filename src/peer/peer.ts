import { isId } from '../lib/random.ts';
import type { RecordKind } from '../lib/records.ts';
import { isSiteName } from './identity.ts';

/** Where a site listens for its peers. */
export interface PeerAddress {
  /** A host name or an IP address, without brackets. */
  readonly host: string;
  readonly port: number;
}

/** Another site, as pinned when the two were paired. Stored in `peers/<siteId>.json`. */
export interface Peer {
  readonly siteId: string;
  readonly name: string;
  /** Certificate of its authority, PEM: the only one that vouches for it. */
  readonly caCertificate: string;
  /** Its Ed25519 public key for statements, PEM. */
  readonly signingKey: string;
  readonly address: PeerAddress;
  readonly pairedAtMs: number;
  /** Since when it is no longer trusted. Its key stays known, so that old statements can still be read. */
  readonly revokedAtMs?: number;
}

export const PEER_KIND: RecordKind<Peer> = { record: 'peer', version: 1, accepts: isPeer };

export function isPeer(value: unknown): value is Peer {
  const peer = value as Partial<Peer> | null;
  return (
    typeof peer === 'object' &&
    peer !== null &&
    typeof peer.siteId === 'string' &&
    isId(peer.siteId) &&
    typeof peer.name === 'string' &&
    isSiteName(peer.name) &&
    typeof peer.caCertificate === 'string' &&
    typeof peer.signingKey === 'string' &&
    isPeerAddress(peer.address) &&
    Number.isSafeInteger(peer.pairedAtMs) &&
    (peer.revokedAtMs === undefined || Number.isSafeInteger(peer.revokedAtMs))
  );
}

export function isPeerAddress(value: unknown): value is PeerAddress {
  const address = value as Partial<PeerAddress> | null | undefined;
  return (
    typeof address === 'object' &&
    address !== null &&
    typeof address.host === 'string' &&
    /^[0-9A-Za-z._:-]{1,253}$/.test(address.host) &&
    typeof address.port === 'number' &&
    Number.isInteger(address.port) &&
    address.port > 0 &&
    address.port < 65536
  );
}
