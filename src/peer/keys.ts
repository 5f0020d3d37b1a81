import {
  createHash,
  createPrivateKey,
  createPublicKey,
  sign as ed25519Sign,
  verify as ed25519Verify,
  type KeyObject,
} from 'node:crypto';
import type { Random } from '../lib/random.ts';

/** PKCS #8 head of an Ed25519 private key (RFC 8410, section 7): what precedes the 32 bytes of the seed. */
const PKCS8_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex');

/** Makes statements that others can check. */
export interface Signer {
  /** Names the key in what it signs: see `keyIdOf`. */
  readonly keyId: string;
  /** The Ed25519 signature of `bytes`: 64 bytes, the same for the same bytes. */
  sign(bytes: Uint8Array): Buffer;
}

/** A new Ed25519 private key. Its 32 bytes come from `random` and from nowhere else. */
export function newPrivateKey(random: Random): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([PKCS8_HEAD, random.bytes(32)]),
    format: 'der',
    type: 'pkcs8',
  });
}

/** A private key from its PKCS #8 PEM; undefined if it is none, or not Ed25519. */
export function privateKeyFrom(pem: string): KeyObject | undefined {
  return ed25519Or(() => createPrivateKey(pem));
}

/** A public key from its PEM; undefined if it is none, or not Ed25519. */
export function publicKeyFrom(pem: string): KeyObject | undefined {
  // Node derives a public key from a private one here; a private key must not pass for a public one.
  return pem.includes('PRIVATE') ? undefined : ed25519Or(() => createPublicKey(pem));
}

function ed25519Or(parse: () => KeyObject): KeyObject | undefined {
  try {
    const key = parse();
    return key.asymmetricKeyType === 'ed25519' ? key : undefined;
  } catch {
    // The text came from a file or from a peer: what is no key is told by undefined.
    return undefined;
  }
}

export function privatePem(key: KeyObject): string {
  return key.export({ format: 'pem', type: 'pkcs8' }).toString();
}

/** SubjectPublicKeyInfo PEM of a private key's public half, or of a public key. */
export function publicPem(key: KeyObject): string {
  return publicHalf(key).export({ format: 'pem', type: 'spki' }).toString();
}

export function publicDer(key: KeyObject): Buffer {
  return publicHalf(key).export({ format: 'der', type: 'spki' });
}

function publicHalf(key: KeyObject): KeyObject {
  return key.type === 'private' ? createPublicKey(key) : key;
}

/** `ed25519:` and the first 32 hexadecimal digits of the SHA-256 of the key's SubjectPublicKeyInfo. */
function keyIdOf(key: KeyObject): string {
  return `ed25519:${createHash('sha256').update(publicDer(key)).digest('hex').slice(0, 32)}`;
}

export function signerOf(privateKey: KeyObject): Signer {
  return {
    keyId: keyIdOf(privateKey),
    sign: (bytes) => ed25519Sign(null, bytes, privateKey),
  };
}

/**
 * Whether `signature` is the Ed25519 signature of `bytes` under a public key (PEM). False, never thrown, for a
 * signature of the wrong length and for a text that is no Ed25519 key: all three may come from outside.
 */
export function verifySignature(publicKey: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const key = publicKeyFrom(publicKey);
  if (key === undefined || signature.length !== 64) return false;
  return ed25519Verify(null, bytes, key, signature);
}

/** What a public key (PEM) is named by in what it signs; undefined for a text that is no Ed25519 key. */
export function keyIdOfPem(publicKey: string): string | undefined {
  const key = publicKeyFrom(publicKey);
  return key && keyIdOf(key);
}
