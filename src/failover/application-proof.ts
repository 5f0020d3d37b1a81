import { dirname, join } from 'node:path';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import type { FileSystem } from '../lib/files.ts';
import { storeRecord, WARMSITE_VERSION } from '../lib/records.ts';
import { type Signer, verifySignature } from '../peer/index.ts';
import type { Replica, ReplicaPoint, Trunk } from '../replica/index.ts';
import { APPLICATION_PROOF, type ApplicationProof, type SignedApplicationProof } from './records.ts';
import { loadProof, type OnUnread, readOrTell } from './unread-proof.ts';

/** The bytes that are signed: a domain string and the canonical JSON. */
export function applicationProofBytes(proof: ApplicationProof): Buffer {
  return Buffer.from(`warmsite application proof v1\n${canonicalJson(proof as Json)}`);
}

/** Stores what the assertions of a point said when it was booted in isolation, in place of an older proof; durable on return. */
export async function storeApplicationProof(
  { files, signer }: { readonly files: FileSystem; readonly signer: Signer },
  replica: Pick<Trunk, 'layout'>,
  seen: Omit<ApplicationProof, 'warmsite'>,
): Promise<SignedApplicationProof> {
  const proof: ApplicationProof = { ...seen, warmsite: WARMSITE_VERSION };
  const directory = replica.layout.proofs(proof.pointId);
  await files.makeDirectory(directory);
  const signature = signer.sign(applicationProofBytes(proof)).toString('base64');
  const signed = { proof, keyId: signer.keyId, signature };
  await storeRecord(files, proofPath(replica, proof.pointId), APPLICATION_PROOF, signed);
  await files.syncDirectory(dirname(directory));
  await files.syncDirectory(replica.layout.directory);
  return signed;
}

/**
 * What the assertions of a point said last; undefined also for a proof of another statement, and for a point that retention has
 * taken away meanwhile.
 */
export async function loadApplicationProof(
  files: FileSystem,
  replica: Pick<Replica, 'layout'>,
  { statement, statementDigest }: ReplicaPoint,
): Promise<SignedApplicationProof | undefined> {
  const signed = await loadProof(files, proofPath(replica, statement.pointId), APPLICATION_PROOF);
  return signed?.proof.statementDigest === statementDigest ? signed : undefined;
}

/** Whether a proof was signed by the key (PEM) and is of this statement. Says nothing about its verdict. */
export function isApplicationProofOf(
  signed: SignedApplicationProof,
  o: { readonly statementDigest: string; readonly publicKey: string },
): boolean {
  const signature = Buffer.from(signed.signature, 'base64');
  return (
    signed.proof.statementDigest === o.statementDigest &&
    verifySignature(o.publicKey, applicationProofBytes(signed.proof), signature)
  );
}

/** The points whose claim was refuted when it was last asked for: they count as crash-consistent. Throws what cannot be read where nobody is told of it. */
export async function demotedPoints(
  files: FileSystem,
  replica: Pick<Replica, 'layout' | 'points'>,
  unread?: OnUnread,
): Promise<ReadonlySet<string>> {
  const demoted = new Set<string>();
  for (const point of replica.points) {
    if (point.statement.assertions === undefined) continue;
    const { pointId } = point.statement;
    const signed = await readOrTell(pointId, unread, () => loadApplicationProof(files, replica, point));
    if (signed?.proof.verdict === 'failed') demoted.add(pointId);
  }
  return demoted;
}

function proofPath(replica: Pick<Trunk, 'layout'>, pointId: string): string {
  return join(replica.layout.proofs(pointId), 'application.json');
}
