import { createHash } from 'node:crypto';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { decodeRecord, encodeRecord, type RecordKind } from '../lib/records.ts';
import { peerFailure } from './errors.ts';
import {
  type IdentityRecord,
  identityOf,
  identityRecordOf,
  isIdentityRecord,
  type SiteIdentity,
} from './identity.ts';
import { isPeer, type Peer } from './peer.ts';

/** Everything that a new installation needs to be this site again. */
interface RecoveryKit {
  readonly identity: IdentityRecord;
  readonly peers: readonly Peer[];
  /** SHA-256 of the canonical JSON of identity and peers, hexadecimal: against damage, not against forgery. */
  readonly checksum: string;
}

const KIT_KIND: RecordKind<RecoveryKit> = {
  record: 'recovery-kit',
  version: 1,
  accepts(value): value is RecoveryKit {
    const kit = value as Partial<RecoveryKit> | null;
    return (
      typeof kit === 'object' &&
      kit !== null &&
      isIdentityRecord(kit.identity) &&
      Array.isArray(kit.peers) &&
      kit.peers.every(isPeer) &&
      typeof kit.checksum === 'string'
    );
  },
};

/**
 * One JSON text with the private keys of the site and its pinned peers. Whoever reads it can be the site:
 * it belongs on paper or in a safe, never beside the replica.
 */
export function exportKit(identity: SiteIdentity, peers: readonly Peer[]): string {
  const body = { identity: identityRecordOf(identity), peers };
  return encodeRecord(KIT_KIND, { ...body, checksum: checksumOf(body) }).toString('utf8');
}

/** Throws PEER_KIT_INVALID for anything but an unchanged kit, RECORD_NEWER for one of a newer program. */
export function importKit(text: string): { identity: SiteIdentity; peers: readonly Peer[] } {
  let kit: RecoveryKit;
  let identity: SiteIdentity;
  try {
    kit = decodeRecord(KIT_KIND, Buffer.from(text), 'the recovery kit');
    identity = identityOf(kit.identity);
  } catch (error) {
    if (isFailure(error, 'RECORD_NEWER')) throw error;
    throw peerFailure('PEER_KIT_INVALID', messageOf(error), { cause: error });
  }
  if (checksumOf({ identity: kit.identity, peers: kit.peers }) !== kit.checksum) {
    throw peerFailure('PEER_KIT_INVALID', 'the recovery kit was changed after it was written');
  }
  return { identity, peers: kit.peers };
}

function checksumOf(body: { identity: IdentityRecord; peers: readonly Peer[] }): string {
  // Through JSON once, so that what is hashed is what is written.
  const written = JSON.parse(JSON.stringify(body)) as Json;
  return createHash('sha256').update(canonicalJson(written)).digest('hex');
}
