import Type from 'typebox';
import { ID_PATTERN } from '../lib/random.ts';

/**
 * The site that made and signed forwarded points, as the site that hands them on knows it. What it says is believed only once it
 * is known otherwise: the site is paired here, or a person has confirmed its key.
 */
export const Origin = Type.Object({
  siteId: Type.String({ pattern: ID_PATTERN }),
  name: Type.String({ minLength: 1, maxLength: 64 }),
  /** Its Ed25519 public key for statements, PEM. */
  signingKey: Type.String({ maxLength: 1024 }),
});
export type Origin = Type.Static<typeof Origin>;
