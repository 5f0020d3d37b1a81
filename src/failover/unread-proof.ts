import { type Failure, isFailure, libFailure } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord, type RecordKind } from '../lib/records.ts';

/** Is told of the proof of a point that cannot be read; the point counts then as one that was not tried. */
export type OnUnread = (pointId: string, failure: Failure) => void;

/** A proof beside a point. Throws RECORD_CORRUPT with what makes it whole: a proof is the outcome of a boot, and can be had again. */
export async function loadProof<T extends object>(
  files: FileSystem,
  path: string,
  kind: RecordKind<T>,
): Promise<T | undefined> {
  try {
    return await loadRecord(files, path, kind);
  } catch (error) {
    if (!isFailure(error, 'RECORD_CORRUPT')) throw error;
    throw libFailure('RECORD_CORRUPT', error.message, {
      ...{ context: error.context, cause: error },
      hint: 'Boot the point in isolation once more (`warmsite failover test`), which writes its proof anew, or move the damaged file away; where the point has a prepared branch, its tests start from that, and only moving the file away helps.',
    });
  }
}

/** What `read` finds of a point; undefined for what cannot be read, if there is somebody to be told of it. */
export async function readOrTell<T>(
  pointId: string,
  unread: OnUnread | undefined,
  read: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!unread || !isFailure(error)) throw error;
    unread(pointId, error);
    return undefined;
  }
}
