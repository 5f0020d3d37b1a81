import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { publishFile } from '../lib/files.ts';
import type { BranchRecord, Trunk } from '../replica/index.ts';
import { storeApplicationProof } from './application-proof.ts';
import { claimVerdictOf } from './assertions.ts';
import { storeBootProof } from './boot-proof.ts';
import type { Boot } from './branch-machine.ts';
import { encodePng } from './picture.ts';
import type { FailoverTools } from './tools.ts';
import type { BootVerdict } from './verdict.ts';

/** A boot that has been seen and judged. */
export interface Seen {
  readonly replica: Trunk;
  readonly purpose: 'test' | 'failover';
  readonly branch: BranchRecord;
  readonly boot: Boot;
  readonly judged: BootVerdict;
  readonly rtoMs: number | null;
  /** The branch had run before: what it holds now is not what the point holds. */
  readonly hasRun: boolean;
}

/** A console picture as it was stored; a later boot may put its own in the place. */
export interface KeptPicture {
  readonly path: string;
  /** Of the file, in hexadecimal. */
  readonly sha256: string;
}

/**
 * Keeps what a boot has shown: of a test the signed proofs of boot and application beside the point, of all else the picture
 * beside the branch. Returns where the picture is, if there is one.
 */
export async function keepEvidence(tools: FailoverTools, seen: Seen): Promise<KeptPicture | null> {
  const { replica, purpose, branch, boot, judged, rtoMs, hasRun } = seen;
  const { picture, nonce } = boot.screen;
  const { statementDigest } = replica.point(branch.pointId);
  // What was booted from a prepared branch, or from one that has been written to, proves nothing of the point itself; what was set apart is none.
  const digest = branch.base === undefined && !hasRun ? statementDigest : undefined;
  if (digest !== undefined) await keepClaim(tools, seen, digest);
  if (digest !== undefined && purpose === 'test' && judged.verdict !== 'unproven' && nonce !== 'not-asked') {
    const { signed, picturePath } = await storeBootProof(tools, replica, {
      ...{ pointId: branch.pointId, statementDigest: digest, verdict: judged.verdict, rtoMs, nonce, picture },
      reasons: [...judged.reasons],
      startedAtMs: Math.min(branch.createdAtMs, tools.clock.wallMs()),
      accelerator: (await tools.hypervisor.acceleration()).accelerator,
      network: boot.network.kind === 'isolated' ? 'isolated' : 'unplugged',
      probes: boot.probes.map((result) => ({ ...result })),
    });
    const { picture: stored } = signed.proof;
    return picturePath === null || stored === null ? null : { path: picturePath, sha256: stored.sha256 };
  }
  if (!picture) return null;
  const path = join(replica.layout.branch(branch.branchId), 'console.png');
  const png = encodePng(picture);
  await publishFile(tools.files, path, png);
  return { path, sha256: createHash('sha256').update(png).digest('hex') };
}

/** A claim that has been checked, with either end, is proven to everybody who trusts this site. */
async function keepClaim(
  tools: FailoverTools,
  { replica, branch, boot }: Seen,
  statementDigest: string,
): Promise<void> {
  const { pointId, createdAtMs } = branch;
  const verdict = claimVerdictOf(boot.assertions);
  if (verdict === undefined || verdict === 'open') return;
  const about = { pointId, statementDigest, verdict, startedAtMs: createdAtMs };
  await storeApplicationProof(tools, replica, { ...about, assertions: [...boot.assertions] });
}
