import type { FileSystem } from '../lib/files.ts';
import { storeRecord } from '../lib/records.ts';
import { manifestKind, type PointManifest } from './records.ts';
import type { Replica } from './replica.ts';

/** Why a point stays whatever retention says, since when and until when. */
export type Hold = NonNullable<PointManifest['hold']>;

/** Holds a point, or releases it. Durable on return. Throws REPLICA_UNKNOWN for a point that is not there (any more). */
export async function holdPoint(
  files: FileSystem,
  replica: Replica,
  pointId: string,
  hold: Hold | undefined,
): Promise<void> {
  await replica.changingPoints(async () => {
    const { held: _was, hold: _why, ...manifest } = replica.point(pointId).manifest;
    const changed: PointManifest = hold ? { ...manifest, held: true, hold } : manifest;
    await storeRecord(files, replica.layout.manifest(pointId), manifestKind(changed), changed);
  });
}
