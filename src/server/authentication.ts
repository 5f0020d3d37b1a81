import { createHash, timingSafeEqual } from 'node:crypto';

/** The name under which the acts of whoever holds the operator token stand in the audit log. */
const OPERATOR = 'operator:default';

/** Knows the operator token by its digest, so that comparing takes the same time whatever is shown. */
export class OperatorTokens {
  readonly #digest: Buffer;

  constructor(token: string) {
    this.#digest = digestOf(token);
  }

  /** Who it is that shows this token; undefined if nobody known. */
  actorOf(shown: string): string | undefined {
    return timingSafeEqual(digestOf(shown), this.#digest) ? OPERATOR : undefined;
  }
}

/** The token in an `authorization` header; empty if there is none. */
export function tokenIn(header: string | undefined): string {
  return /^Bearer ([\x21-\x7e]{1,256})$/.exec(header ?? '')?.[1] ?? '';
}

function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
