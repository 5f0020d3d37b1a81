import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { faultOfAuthority } from './certificate-check.ts';
import { certificateFrom } from './certificates.ts';
import { peerFailure } from './errors.ts';
import type { SiteIdentity } from './identity.ts';
import { verifySignature } from './keys.ts';
import { isPeer, type Peer, type PeerAddress } from './peer.ts';

/** What two sites tell each other of themselves when they are paired. A type, not an interface: it is Json. */
export type Introduction = {
  readonly siteId: string;
  readonly name: string;
  readonly caCertificate: string;
  readonly signingKey: string;
  readonly address: { readonly host: string; readonly port: number };
  /** Base64; by the signing key, over `signedBytes`: proof that the site holds that key and means this pairing. */
  readonly signature: string;
};

/** For whom an introduction is made; it is worth nothing elsewhere. */
export interface Occasion {
  /** Site id of the reader. */
  readonly audience: string;
  readonly tokenId: string;
}

export function introduce(identity: SiteIdentity, address: PeerAddress, occasion: Occasion): Introduction {
  const facts = {
    siteId: identity.siteId,
    name: identity.name,
    caCertificate: identity.caCertificate,
    signingKey: identity.signingKey,
    address: { host: address.host, port: address.port },
  };
  return {
    ...facts,
    signature: identity.signer.sign(signedBytes(facts, occasion)).toString('base64'),
  };
}

/**
 * The peer that an introduction describes, or PEER_INTRODUCTION_INVALID. Does not prove that the sender holds the
 * key of the authority: the TLS connection does.
 */
export function peerFromIntroduction(value: unknown, occasion: Occasion, nowMs: number): Peer {
  const { signature, ...facts } = (value ?? {}) as Partial<Introduction>;
  const peer = { ...facts, pairedAtMs: nowMs };
  if (!isPeer(peer) || typeof signature !== 'string') {
    throw peerFailure('PEER_INTRODUCTION_INVALID', 'the other site introduced itself in a form unknown here');
  }
  const authority = certificateFrom(peer.caCertificate);
  if (authority === undefined) {
    throw peerFailure('PEER_INTRODUCTION_INVALID', `site ${peer.siteId} introduced no certificate`);
  }
  const fault = faultOfAuthority(authority);
  if (fault) throw fault;
  const { siteId, name, caCertificate, signingKey, address, pairedAtMs } = peer;
  const exact = {
    siteId,
    name,
    caCertificate,
    signingKey,
    address: { host: address.host, port: address.port },
  };
  if (!verifySignature(signingKey, signedBytes(exact, occasion), Buffer.from(signature, 'base64'))) {
    throw peerFailure(
      'PEER_INTRODUCTION_INVALID',
      `the signature of site ${siteId} under its introduction is wrong`,
    );
  }
  return { ...exact, pairedAtMs };
}

function signedBytes(facts: { readonly [name: string]: Json }, occasion: Occasion): Buffer {
  const { audience, tokenId } = occasion;
  return Buffer.from(`warmsite introduction 1\n${canonicalJson({ ...facts, audience, tokenId })}`);
}
