import { createHash } from 'node:crypto';
import { type SignedStatement, statementBytes } from '../../src/recovery-point/index.ts';
import type { StatementSigner } from '../../src/replication/index.ts';

const KEY_ID = '0123456789abcdef';

/** Signatures that nobody forges here: a hash with a word in front. Real ones would only cost time. */
export const simSigner: StatementSigner = { keyId: KEY_ID, sign: signatureOf };

export function isSigned(siteId: string, { statement, keyId, signature }: SignedStatement): boolean {
  const expected = signatureOf(statementBytes(statement)).toString('base64');
  return statement.sourceSiteId === siteId && keyId === KEY_ID && signature === expected;
}

function signatureOf(bytes: Uint8Array): Buffer {
  return createHash('sha256').update('the key of the simulation').update(bytes).digest();
}
