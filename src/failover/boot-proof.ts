import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { type FileSystem, publishFile } from '../lib/files.ts';
import { storeRecord, WARMSITE_VERSION } from '../lib/records.ts';
import { type Signer, verifySignature } from '../peer/index.ts';
import type { Replica, Trunk } from '../replica/index.ts';
import { encodePng, type Picture } from './picture.ts';
import { BOOT_PROOF, type BootProof, type SignedBootProof } from './records.ts';
import { loadProof, type OnUnread, readOrTell } from './unread-proof.ts';

const PICTURE_NAME = 'console.png';

/** The bytes that are signed: a domain string and the canonical JSON. */
export function bootProofBytes(proof: BootProof): Buffer {
  return Buffer.from(`warmsite boot proof v1\n${canonicalJson(proof as Json)}`);
}

/** Stores picture and signed proof of an isolated boot, in place of an older one; durable on return. */
export async function storeBootProof(
  tools: { readonly files: FileSystem; readonly signer: Signer },
  replica: Trunk,
  seen: Omit<BootProof, 'picture'> & { readonly picture: Picture | undefined },
): Promise<{ readonly signed: SignedBootProof; readonly picturePath: string | null }> {
  const { files, signer } = tools;
  const directory = replica.layout.proofs(seen.pointId);
  const picturePath = join(directory, PICTURE_NAME);
  await files.makeDirectory(directory);
  const png = seen.picture && encodePng(seen.picture);
  if (png) await publishFile(files, picturePath, png);
  else await files.remove(picturePath);
  const picture = png ? { name: PICTURE_NAME, sha256: createHash('sha256').update(png).digest('hex') } : null;
  const proof: BootProof = { ...seen, picture, warmsite: WARMSITE_VERSION };
  const signature = signer.sign(bootProofBytes(proof)).toString('base64');
  const signed = { proof, keyId: signer.keyId, signature };
  await storeRecord(files, proofPath(replica, seen.pointId), BOOT_PROOF, signed);
  await files.syncDirectory(dirname(directory));
  await files.syncDirectory(replica.layout.directory);
  return { signed, picturePath: png ? picturePath : null };
}

/** The proof of the last isolated boot of a point, passed or failed. */
export function loadBootProof(
  files: FileSystem,
  replica: Replica,
  pointId: string,
): Promise<SignedBootProof | undefined> {
  return loadProof(files, proofPath(replica, pointId), BOOT_PROOF);
}

/** Whether a proof was signed by the key (PEM) and is of this statement. Says nothing about its verdict. */
export function isBootProofOf(
  signed: SignedBootProof,
  o: { readonly statementDigest: string; readonly publicKey: string },
): boolean {
  const signature = Buffer.from(signed.signature, 'base64');
  return (
    signed.proof.statementDigest === o.statementDigest &&
    verifySignature(o.publicKey, bootProofBytes(signed.proof), signature)
  );
}

/** How the last isolated boot of each point ended, of those that were tried. Throws what cannot be read where nobody is told of it. */
export async function bootVerdicts(
  files: FileSystem,
  replica: Replica,
  unread?: OnUnread,
): Promise<ReadonlyMap<string, 'passed' | 'failed'>> {
  const verdicts = new Map<string, 'passed' | 'failed'>();
  for (const { statement, statementDigest } of replica.points) {
    const { pointId } = statement;
    const proof = (await readOrTell(pointId, unread, () => loadBootProof(files, replica, pointId)))?.proof;
    if (proof?.statementDigest === statementDigest) verdicts.set(pointId, proof.verdict);
  }
  return verdicts;
}

/** The points whose last isolated boot passed: what retention calls proven. Throws what cannot be read: it might be the one that keeps a point. */
export async function provenPoints(files: FileSystem, replica: Replica): Promise<ReadonlySet<string>> {
  const verdicts = await bootVerdicts(files, replica);
  return new Set([...verdicts].filter(([, verdict]) => verdict === 'passed').map(([pointId]) => pointId));
}

function proofPath(replica: Trunk, pointId: string): string {
  return join(replica.layout.proofs(pointId), 'boot.json');
}
