import { importKit, keyIdOfPem } from '../peer/index.ts';
import type { NamedKey } from './verify.ts';

/** The public key in a PEM text; undefined if there is none. */
export function keyOfPem(text: string, name: string): NamedKey | undefined {
  return keyIdOfPem(text) === undefined ? undefined : { name, pem: text };
}

/** The keys of a recovery kit: the site's own, and those that it has pinned of others. Throws PEER_KIT_INVALID, RECORD_NEWER. */
export function keysOfKit(text: string, source: string): NamedKey[] {
  const { identity, peers } = importKit(text);
  return [
    { name: `site ${identity.name} (${source})`, pem: identity.signingKey },
    ...peers.map(({ name, signingKey }) => ({ name: `site ${name} (${source})`, pem: signingKey })),
  ];
}
