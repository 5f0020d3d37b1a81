import type { FileSystem } from '../lib/files.ts';
import { storeRecord } from '../lib/records.ts';
import type { RetentionVerdict } from '../recovery-point/index.ts';
import { checkHold } from './depth.ts';
import { manifestKind, type PointManifest } from './records.ts';
import type { Replica } from './replica.ts';

/** Why a point stays whatever retention says, since when and until when. */
export type Hold = NonNullable<PointManifest['hold']>;

/**
 * Holds a point, or releases it. Durable on return. `verdicts` is what retention says now. Throws REPLICA_UNKNOWN for a point
 * that is not there (any more), REPLICA_TOO_DEEP when too many are held already.
 */
export async function holdPoint(
  files: FileSystem,
  replica: Replica,
  pointId: string,
  hold: Hold | undefined,
  verdicts: () => Promise<readonly RetentionVerdict[]>,
): Promise<void> {
  await replica.changingPoints(async () => {
    const { held: _was, hold: _why, ...manifest } = replica.point(pointId).manifest;
    if (hold) checkHold(replica, await verdicts(), pointId);
    const changed: PointManifest = hold ? { ...manifest, held: true, hold } : manifest;
    await storeRecord(files, replica.layout.manifest(pointId), manifestKind(changed), changed);
  });
}
