import { join } from 'node:path';
import { BLOCK_BYTES_DEFAULT, DigestTree } from '../delta/index.ts';
import type { DiskImages, ImageReader } from '../hypervisor/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import { storeRecord } from '../lib/records.ts';
import { type SignedStatement, statementDigest } from '../recovery-point/index.ts';
import { differenceFrom, digestsOf } from './content.ts';
import { replicaFailure } from './errors.ts';
import { CONTENT_PROOF, type ContentProof } from './records.ts';
import type { Replica } from './replica.ts';

export interface VerifyTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly clock: Clock;
  readonly isSignedBySource: (sourceSiteId: string, signed: SignedStatement) => boolean;
}

export interface VerifyProgress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/**
 * Proves a point's content: reads its whole chain through QEMU, computes the digest tree of every disk from nothing and
 * compares the roots with the signed statement. Stored digests are used for one thing only: to name the blocks when the
 * roots differ. Throws REPLICA_SIGNATURE_INVALID or REPLICA_LAYER_DAMAGED; leaves a durable proof otherwise.
 */
export async function verifyPoint(
  tools: VerifyTools,
  replica: Replica,
  pointId: string,
  options: { onProgress?: (progress: VerifyProgress) => void; signal?: AbortSignal } = {},
): Promise<ContentProof> {
  replica.checkUsable();
  const { manifest, statement } = replica.point(pointId);
  if (!tools.isSignedBySource(replica.record.sourceSiteId, manifest.signed)) {
    throw replicaFailure(
      'REPLICA_SIGNATURE_INVALID',
      `the manifest of ${pointId} is not signed by its site`,
      {
        context: { pointId },
        hint: 'The manifest was changed after it was signed: fail over to another point, and check the disk.',
      },
    );
  }
  const bytesTotal = statement.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
  let blocks = 0;
  let bytesDone = 0;
  await replica.reading(async () => {
    for (const disk of statement.disks) {
      await using reader = await tools.images.open(replica.chain(pointId, disk.diskId), { fromDevice: true });
      const tree = new DigestTree({ sizeBytes: disk.sizeBytes, blockBytes: statement.blockBytes });
      const { data } = await reader.contentExtents();
      for await (const { index, digest } of digestsOf(reader, data, statement.blockBytes, options.signal)) {
        tree.set(index, digest);
        blocks += 1;
        options.onProgress?.({ bytesDone: bytesDone + index * statement.blockBytes, bytesTotal });
      }
      bytesDone += disk.sizeBytes;
      options.onProgress?.({ bytesDone, bytesTotal });
      if (tree.root().toString('hex') !== disk.root) await nameDamage(replica, pointId, disk.diskId, reader);
    }
  });
  const proof: ContentProof = {
    pointId,
    verifiedAtMs: tools.clock.wallMs(),
    statementDigest: statementDigest(statement),
    blocks,
    bytes: bytesTotal,
  };
  await tools.files.makeDirectory(replica.layout.proofs(pointId));
  await storeRecord(tools.files, join(replica.layout.proofs(pointId), 'content.json'), CONTENT_PROOF, proof);
  return proof;
}

async function nameDamage(
  replica: Replica,
  pointId: string,
  diskId: string,
  reader: ImageReader,
): Promise<never> {
  const all = [{ offset: 0, length: reader.sizeBytes }];
  const tree = await replica.treeAt(pointId, diskId);
  const difference = await differenceFrom(reader, tree, all, BLOCK_BYTES_DEFAULT);
  const where = difference?.ranges.map(({ offset, length }) => `${offset}+${length}`).join(', ');
  throw replicaFailure(
    'REPLICA_LAYER_DAMAGED',
    `${diskId} of ${pointId} differs from what was signed at ${where ?? 'an unknown place'}`,
    {
      context: {
        pointId,
        diskId,
        blocks: difference?.blocks ?? null,
        firstOffset: difference?.ranges[0]?.offset ?? null,
      },
    },
  );
}
