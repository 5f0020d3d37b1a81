import type { KeyObject } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import { isId, newId, type Random } from '../lib/random.ts';
import { loadRecord, type RecordKind, storeRecord } from '../lib/records.ts';
import { certificateFrom, issueAuthority } from './certificates.ts';
import { peerFailure } from './errors.ts';
import { newPrivateKey, privateKeyFrom, privatePem, publicPem, type Signer, signerOf } from './keys.ts';

/** Who this site is. Holds private keys as objects that do not print themselves. */
export interface SiteIdentity {
  readonly siteId: string;
  /** For people; names nothing. */
  readonly name: string;
  readonly createdAtMs: number;
  /** Certificate of the site's own authority, PEM: what a peer pins. */
  readonly caCertificate: string;
  readonly caKey: KeyObject;
  /** Ed25519 public key for statements, SubjectPublicKeyInfo PEM: what a peer pins. */
  readonly signingKey: string;
  readonly signingPrivateKey: KeyObject;
  /** Signs with `signingPrivateKey`. */
  readonly signer: Signer;
}

/** An identity as it lies in `keys/identity.json` and in the recovery kit. */
export interface IdentityRecord {
  readonly siteId: string;
  readonly name: string;
  readonly createdAtMs: number;
  readonly caCertificate: string;
  /** PKCS #8 PEM. */
  readonly caKey: string;
  /** PKCS #8 PEM. */
  readonly signingKey: string;
}

const NAME_CHARACTERS_MAX = 64;

const IDENTITY_KIND: RecordKind<IdentityRecord> = {
  record: 'identity',
  version: 1,
  accepts: isIdentityRecord,
};

/** A new site with a new id and new keys, in memory only. A bad name is PEER_NAME_INVALID. */
export async function createIdentity(o: {
  name: string;
  clock: Clock;
  random: Random;
}): Promise<SiteIdentity> {
  if (!isSiteName(o.name)) {
    throw peerFailure('PEER_NAME_INVALID', `«${o.name.slice(0, 80)}» cannot be the name of a site`);
  }
  const siteId = newId(o.clock, o.random);
  const nowMs = o.clock.wallMs();
  const caKey = newPrivateKey(o.random);
  return identityOf({
    siteId,
    name: o.name,
    createdAtMs: nowMs,
    caCertificate: issueAuthority({ siteId, key: caKey, nowMs, random: o.random }),
    caKey: privatePem(caKey),
    signingKey: privatePem(newPrivateKey(o.random)),
  });
}

/** Durable on return. The file has mode 0600, the directory 0700. Replaces what was there. */
export async function saveIdentity(
  files: FileSystem,
  dataDirectory: string,
  identity: SiteIdentity,
): Promise<void> {
  const directory = join(dataDirectory, 'keys');
  await files.makeDirectory(directory);
  await storeRecord(files, join(directory, 'identity.json'), IDENTITY_KIND, identityRecordOf(identity));
  await files.syncDirectory(dataDirectory);
}

/** Undefined if the site has no identity yet. Throws RECORD_CORRUPT, RECORD_NEWER, PEER_IDENTITY_DAMAGED. */
export async function loadIdentity(
  files: FileSystem,
  dataDirectory: string,
): Promise<SiteIdentity | undefined> {
  const path = join(dataDirectory, 'keys', 'identity.json');
  const record = await loadRecord(files, path, IDENTITY_KIND);
  return record === undefined ? undefined : identityOf(record);
}

/** Throws PEER_IDENTITY_DAMAGED unless keys and certificate are what they must be and belong together. */
export function identityOf(record: IdentityRecord): SiteIdentity {
  const caKey = privateKeyFrom(record.caKey);
  const signingPrivateKey = privateKeyFrom(record.signingKey);
  const certificate = certificateFrom(record.caCertificate);
  if (!caKey || !signingPrivateKey || !certificate?.ca || !certificate.checkPrivateKey(caKey)) {
    throw peerFailure('PEER_IDENTITY_DAMAGED', `the keys of site ${record.siteId} do not belong together`, {
      context: { siteId: record.siteId },
    });
  }
  return {
    siteId: record.siteId,
    name: record.name,
    createdAtMs: record.createdAtMs,
    caCertificate: record.caCertificate,
    caKey,
    signingKey: publicPem(signingPrivateKey),
    signingPrivateKey,
    signer: signerOf(signingPrivateKey),
  };
}

export function identityRecordOf(identity: SiteIdentity): IdentityRecord {
  return {
    siteId: identity.siteId,
    name: identity.name,
    createdAtMs: identity.createdAtMs,
    caCertificate: identity.caCertificate,
    caKey: privatePem(identity.caKey),
    signingKey: privatePem(identity.signingPrivateKey),
  };
}

export function isIdentityRecord(value: unknown): value is IdentityRecord {
  const record = value as Partial<IdentityRecord> | null;
  return (
    typeof record === 'object' &&
    record !== null &&
    typeof record.siteId === 'string' &&
    isId(record.siteId) &&
    typeof record.name === 'string' &&
    isSiteName(record.name) &&
    Number.isSafeInteger(record.createdAtMs) &&
    typeof record.caCertificate === 'string' &&
    typeof record.caKey === 'string' &&
    typeof record.signingKey === 'string'
  );
}

export function isSiteName(name: string): boolean {
  return name.length > 0 && name.length <= NAME_CHARACTERS_MAX && !/\p{Cc}|\p{Cf}/u.test(name);
}
