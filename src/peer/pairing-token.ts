import { createHash } from 'node:crypto';
import { isId } from '../lib/random.ts';
import { peerFailure } from './errors.ts';
import { isPeerAddress, type PeerAddress } from './peer.ts';

/** What a person carries from the site that issued it to the site that redeems it. */
export interface PairingToken {
  readonly tokenId: string;
  /** Where the issuing site listens. */
  readonly address: PeerAddress;
  readonly siteId: string;
  /** SHA-256 of the issuing site's authority certificate: 32 bytes. */
  readonly fingerprint: Buffer;
  /** 32 random bytes, known to whoever holds the token and to nobody else. */
  readonly secret: Buffer;
}

const PREFIX = 'warmsite-pair-1.';
const CHARACTERS_MAX = 1024;

export function encodeToken(token: PairingToken): string {
  const fields = [
    token.tokenId,
    token.address.host,
    token.address.port,
    token.siteId,
    token.fingerprint.toString('base64url'),
    token.secret.toString('base64url'),
  ];
  const body = Buffer.from(JSON.stringify(fields)).toString('base64url');
  return `${PREFIX}${body}.${checkDigits(body)}`;
}

/** Throws PEER_TOKEN_MALFORMED, also for a token that lost a character on its way. */
export function decodeToken(text: string): PairingToken {
  const trimmed = text.trim();
  const [body, check, ...rest] = trimmed.slice(PREFIX.length).split('.');
  if (
    trimmed.length > CHARACTERS_MAX ||
    !trimmed.startsWith(PREFIX) ||
    body === undefined ||
    check !== checkDigits(body) ||
    rest.length > 0
  ) {
    throw malformed();
  }
  const [tokenId, host, port, siteId, fingerprint, secret] = fieldsOf(body);
  const address = { host, port };
  if (typeof tokenId !== 'string' || !isId(tokenId)) throw malformed();
  if (typeof siteId !== 'string' || !isId(siteId)) throw malformed();
  if (!isPeerAddress(address)) throw malformed();
  return {
    tokenId,
    address,
    siteId,
    fingerprint: bytesOf(fingerprint),
    secret: bytesOf(secret),
  };
}

function fieldsOf(body: string): readonly unknown[] {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(body, 'base64url').toString('utf8'));
  } catch (error) {
    throw malformed(error);
  }
  if (!Array.isArray(value) || value.length !== 6) throw malformed();
  return value;
}

function bytesOf(value: unknown): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'base64url') : Buffer.alloc(0);
  if (bytes.length !== 32) throw malformed();
  return bytes;
}

function checkDigits(body: string): string {
  return createHash('sha256').update(body).digest('hex').slice(0, 8);
}

function malformed(cause?: unknown) {
  return peerFailure('PEER_TOKEN_MALFORMED', 'this is not a whole pairing token', { cause });
}
