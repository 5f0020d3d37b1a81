import { createHash, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import type { Random } from '../lib/random.ts';
import {
  bitString,
  boolean,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  set,
  tagged,
  time,
  utf8String,
} from './der.ts';
import { publicDer } from './keys.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

/** A leaf is valid this long after its issue … */
export const LEAF_LIFETIME_MS = 30 * DAY_MS;
/** … and this long before it, because clocks differ. */
const LEAF_BACKDATE_MS = DAY_MS;

/** 9999-12-31 23:59:59: «no well-defined expiration date» (RFC 5280, 4.1.2.5). */
const NEVER_MS = Date.UTC(9999, 11, 31, 23, 59, 59);

const OID = {
  ed25519: '1.3.101.112',
  commonName: '2.5.4.3',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

/** Context-specific tags of RFC 5280: the version and the extensions of a certificate, names of three kinds, a key id. */
const CONTEXT = {
  version: 0xa0,
  extensions: 0xa3,
  dnsName: 0x82,
  uniformResourceIdentifier: 0x86,
  ipAddress: 0x87,
  keyIdentifier: 0x80,
} as const;

/** The only name that counts in a leaf, for sites and for our own clients. */
export function siteUri(siteId: string): string {
  return `warmsite:site:${siteId}`;
}

/** The self-signed certificate (PEM) of a site's own authority; it does not expire. */
export function issueAuthority(o: { siteId: string; key: KeyObject; nowMs: number; random: Random }): string {
  const name = authorityName(o.siteId);
  return issue({
    issuer: name,
    subject: name,
    subjectKey: o.key,
    issuerKey: o.key,
    notBeforeMs: o.nowMs - LEAF_BACKDATE_MS,
    notAfterMs: NEVER_MS,
    random: o.random,
    extensions: [
      extension(OID.basicConstraints, 'critical', sequence(boolean(true), integer(Buffer.from([0])))),
      // keyCertSign and cRLSign: bits 5 and 6.
      extension(OID.keyUsage, 'critical', bitString(Buffer.from([0b0000_0110]), 1)),
      extension(OID.subjectKeyIdentifier, 'plain', octetString(keyIdentifier(o.key))),
    ],
  });
}

/**
 * A leaf certificate (PEM) for `leafKey`, signed by the site's authority. `hosts` are names and addresses by which clients that
 * are not ours reach the site; a leaf for other sites has none.
 */
export function issueLeaf(o: {
  hosts?: readonly string[];
  siteId: string;
  leafKey: KeyObject;
  authorityKey: KeyObject;
  nowMs: number;
  random: Random;
}): string {
  const uri = tagged(CONTEXT.uniformResourceIdentifier, Buffer.from(siteUri(o.siteId)));
  const issuerKeyId = tagged(CONTEXT.keyIdentifier, keyIdentifier(o.authorityKey));
  return issue({
    issuer: authorityName(o.siteId),
    subject: commonName(`Warmsite site ${o.siteId}`),
    subjectKey: o.leafKey,
    issuerKey: o.authorityKey,
    notBeforeMs: o.nowMs - LEAF_BACKDATE_MS,
    notAfterMs: o.nowMs + LEAF_LIFETIME_MS,
    random: o.random,
    extensions: [
      extension(OID.basicConstraints, 'critical', sequence()),
      // digitalSignature: bit 0.
      extension(OID.keyUsage, 'critical', bitString(Buffer.from([0b1000_0000]), 7)),
      extension(
        OID.extendedKeyUsage,
        'plain',
        sequence(objectIdentifier(OID.serverAuth), objectIdentifier(OID.clientAuth)),
      ),
      extension(OID.subjectAltName, 'plain', sequence(uri, ...(o.hosts ?? []).map(hostName))),
      extension(OID.subjectKeyIdentifier, 'plain', octetString(keyIdentifier(o.leafKey))),
      extension(OID.authorityKeyIdentifier, 'plain', sequence(issuerKeyId)),
    ],
  });
}

function hostName(host: string): Buffer {
  switch (isIP(host)) {
    case 4:
      return tagged(CONTEXT.ipAddress, Buffer.from(host.split('.').map(Number)));
    case 6:
      return tagged(CONTEXT.ipAddress, bytesOfIPv6(host));
    default:
      return tagged(CONTEXT.dnsName, Buffer.from(host, 'ascii'));
  }
}

/** The 16 bytes of an address, which the URL standard writes in one way: groups without leading zeros, `::` at most once. */
function bytesOfIPv6(host: string): Buffer {
  const [front = '', back] = new URL(`http://[${host}]`).hostname.slice(1, -1).split('::');
  const groupsOf = (part: string) => (part === '' ? [] : part.split(':'));
  const [before, after] = [groupsOf(front), groupsOf(back ?? '')];
  const zeros = new Array<string>(8 - before.length - after.length).fill('0');
  return Buffer.from([...before, ...zeros, ...after].map((group) => group.padStart(4, '0')).join(''), 'hex');
}

/** SHA-256 of the DER of a certificate: what a pairing token carries. 32 bytes. */
export function fingerprintOf(certificate: X509Certificate): Buffer {
  return createHash('sha256').update(certificate.raw).digest();
}

/** A certificate from PEM; undefined for anything else. */
export function certificateFrom(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    // The text came from a file or from a peer: what is no certificate is told by undefined.
    return undefined;
  }
}

/** Certificate and TBSCertificate of RFC 5280, 4.1, version 3, signed with Ed25519 (RFC 8410). */
function issue(o: {
  issuer: Buffer;
  subject: Buffer;
  subjectKey: KeyObject;
  issuerKey: KeyObject;
  notBeforeMs: number;
  notAfterMs: number;
  random: Random;
  extensions: Buffer[];
}): string {
  const algorithm = sequence(objectIdentifier(OID.ed25519));
  const body = sequence(
    tagged(CONTEXT.version, integer(Buffer.from([2]))),
    integer(serialNumber(o.random)),
    algorithm,
    o.issuer,
    sequence(time(o.notBeforeMs), time(o.notAfterMs)),
    o.subject,
    publicDer(o.subjectKey),
    tagged(CONTEXT.extensions, sequence(...o.extensions)),
  );
  const der = sequence(body, algorithm, bitString(sign(null, body, o.issuerKey)));
  const lines = der.toString('base64').replace(/.{64}(?=.)/g, '$&\n');
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}

/** 16 bytes, positive and not 0, as RFC 5280, 4.1.2.2 asks. */
function serialNumber(random: Random): Buffer {
  const serial = random.bytes(16);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  return serial;
}

const authorityName = (siteId: string): Buffer => commonName(`Warmsite authority ${siteId}`);

const commonName = (name: string): Buffer =>
  sequence(set(sequence(objectIdentifier(OID.commonName), utf8String(name))));

const extension = (oid: string, weight: 'critical' | 'plain', value: Buffer): Buffer =>
  sequence(objectIdentifier(oid), ...(weight === 'critical' ? [boolean(true)] : []), octetString(value));

const keyIdentifier = (key: KeyObject): Buffer =>
  createHash('sha256').update(publicDer(key)).digest().subarray(0, 20);
