import assert from 'node:assert/strict';
import type { BranchView } from '../../src/failover/branch-view.ts';
import type { DiskImages } from '../../src/hypervisor/index.ts';
import { totalLength } from '../../src/lib/extents.ts';
import { branchChain, findBranch, type Replica } from '../../src/replica/index.ts';

/** Header and tables of the layers of two disks, of which QEMU writes the parts that are used. */
const TABLES_BYTES_MAX = 1024 * 1024;

/**
 * Fails the test unless a branch whose machine has ended takes on this host what its guest has written, in the unit in which a
 * layer takes something: of a cluster of 128 KiB only the sub-clusters of 4 KiB are written that the guest wrote to, the rest
 * of it is a hole in the file. Resolves with these bytes.
 */
export async function assertTakesWhatIsWritten(
  images: DiskImages,
  replica: Replica,
  { branchId, ownBytes, name = branchId }: Pick<BranchView, 'branchId' | 'ownBytes' | 'name'>,
): Promise<number> {
  const branch = findBranch(replica, branchId);
  let writtenBytes = 0;
  for (const diskId of branch.diskIds) {
    await using reader = await images.open(branchChain(replica, branch, diskId));
    writtenBytes += totalLength((await reader.ownExtents(1)).data);
  }
  const tookBytes = ownBytes - writtenBytes;
  const what = `${name} takes ${ownBytes} bytes for ${writtenBytes} that were written`;
  assert.ok(tookBytes >= 0 && tookBytes <= TABLES_BYTES_MAX, what);
  return writtenBytes;
}
