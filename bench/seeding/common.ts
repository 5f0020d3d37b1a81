import { readFileSync } from 'node:fs';
import { type PeerDirectory, verifySignature } from '../../src/peer/index.ts';
import { type SignedStatement, statementBytes } from '../../src/recovery-point/index.ts';

/** The largest memory that this process has had, in MiB (VmHWM of /proc/self/status). */
export function rssPeakMiB(): number {
  const line = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  return Math.round(Number(line?.[1] ?? 0) / 1024);
}

/** Statements signed by the pinned key of their site. */
export function trusted(peers: PeerDirectory): (siteId: string, signed: SignedStatement) => boolean {
  return (siteId, signed) => {
    const peer = peers.get(siteId);
    const signature = Buffer.from(signed.signature, 'base64');
    return (
      peer !== undefined && verifySignature(peer.signingKey, statementBytes(signed.statement), signature)
    );
  };
}
