import type { X509Certificate } from 'node:crypto';
import type { Failure } from '../lib/errors.ts';
import { isId } from '../lib/random.ts';
import { siteUri } from './certificates.ts';
import { peerFailure } from './errors.ts';

const SITE_NAME = /^URI:warmsite:site:([0-9a-z]{26})$/;

/** The site that a leaf claims to be; undefined if it has any other name, or more than one. */
export function claimedSite(leaf: X509Certificate): string | undefined {
  const siteId = SITE_NAME.exec(leaf.subjectAltName ?? '')?.[1];
  return siteId !== undefined && isId(siteId) ? siteId : undefined;
}

/**
 * What is wrong with a leaf that must have been issued for `siteId` by `authority`; undefined if nothing is.
 * The chain has one step by design, so that this is the whole of path validation: signature, issuer,
 * no authority itself, name, dates.
 */
export function faultOfLeaf(
  leaf: X509Certificate,
  authority: X509Certificate,
  siteId: string,
  nowMs: number,
): Failure | undefined {
  if (!leaf.checkIssued(authority) || !leaf.verify(authority.publicKey)) {
    return peerFailure(
      'PEER_AUTHORITY_WRONG',
      `the certificate shown for site ${siteId} is not from its authority`,
      {
        context: { siteId },
      },
    );
  }
  if (leaf.ca || leaf.subjectAltName !== `URI:${siteUri(siteId)}`) {
    return peerFailure('PEER_AUTHORITY_WRONG', `the certificate shown is not one of site ${siteId}`, {
      context: { siteId, shown: claimedSite(leaf) ?? null },
    });
  }
  if (nowMs < leaf.validFromDate.getTime() || nowMs > leaf.validToDate.getTime()) {
    return peerFailure(
      'PEER_CERTIFICATE_EXPIRED',
      `the certificate of site ${siteId} is valid from ${leaf.validFrom} to ${leaf.validTo}, not now`,
      { context: { siteId, nowMs } },
    );
  }
  return undefined;
}

/** What is wrong with a certificate that a site introduces as its own authority; undefined if nothing is. */
export function faultOfAuthority(authority: X509Certificate): Failure | undefined {
  const fine =
    authority.ca &&
    authority.publicKey.asymmetricKeyType === 'ed25519' &&
    authority.checkIssued(authority) &&
    authority.verify(authority.publicKey);
  return fine
    ? undefined
    : peerFailure('PEER_INTRODUCTION_INVALID', 'the certificate introduced is not that of an authority');
}
