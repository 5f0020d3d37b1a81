import { libFailure } from '../../lib/errors.ts';
import { spaceAt } from '../../lib/host-files.ts';

/** So much of the file system deltas leave free, … */
const FLOOR_FRACTION = 0.01;
/** … but no more than this: what machines that are failed over write must find room. */
const FLOOR_BYTES_MAX = 4 * 2 ** 30;

/** Below so much free space no delta is taken in. Pure. */
function receiveFloor(totalBytes: number): number {
  return Math.min(totalBytes * FLOOR_FRACTION, FLOOR_BYTES_MAX);
}

/**
 * Throws DISK_FULL while deltas would take the last of the room. There is no quota: without this a machine that changes much, or
 * a peer that means ill, could leave none for a failover. A delta that has been begun may go below the floor.
 */
export async function checkRoom(dataDirectory: string, look: typeof spaceAt = spaceAt): Promise<void> {
  const { freeBytes, totalBytes } = await look(dataDirectory);
  const floorBytes = receiveFloor(totalBytes);
  if (freeBytes >= floorBytes) return;
  const inMiB = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  throw libFailure(
    'DISK_FULL',
    `${inMiB(freeBytes)} are left below ${dataDirectory}; deltas leave ${inMiB(floorBytes)} to machines that are failed over`,
    { context: { freeBytes, floorBytes } },
  );
}
