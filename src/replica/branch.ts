import { dirname, join } from 'node:path';
import type { ImageFile } from '../hypervisor/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { createEmptyLayer } from '../qcow2/index.ts';
import { replicaFailure } from './errors.ts';
import { layerName, type ReplicaLayout } from './layout.ts';
import { BRANCH_RECORD, type BranchRecord } from './records.ts';
import type { Replica } from './replica.ts';

/**
 * Makes a writable child of a point: an empty layer for each disk, whose backing file is the point's own. The point
 * stays as long as the branch does. The record is written first, so that a half-made branch is found and removed.
 */
export async function createBranch(
  files: FileSystem,
  replica: Replica,
  branch: Pick<BranchRecord, 'branchId' | 'pointId' | 'purpose' | 'createdAtMs'>,
): Promise<BranchRecord> {
  const { layout } = replica;
  replica.checkUsable();
  const { disks } = replica.point(branch.pointId).statement;
  const record: BranchRecord = { ...branch, diskIds: disks.map(({ diskId }) => diskId) };
  const directory = layout.branch(branch.branchId);
  try {
    await files.makeDirectory(directory);
    await storeRecord(files, recordPath(layout, branch.branchId), BRANCH_RECORD, record);
    await replica.refreshBranches();
    // From here on the point stays; retention may have taken it just before.
    replica.point(branch.pointId);
    for (const { diskId, sizeBytes } of disks) {
      const name = join('..', '..', 'disks', diskId, layerName(branch.pointId));
      const shape = { sizeBytes, backing: { name, format: 'qcow2' as const } };
      await createEmptyLayer(files, branchLayer(layout, branch.branchId, diskId), shape, { sync: true });
    }
    await files.syncDirectory(directory);
    await files.syncDirectory(dirname(directory));
    return record;
  } catch (error) {
    await removeBranch(files, replica, branch.branchId).catch(() => {
      // What hindered the making hinders the removal too; the branch is listed at the next look and can be removed then.
    });
    throw error;
  }
}

/** The files of a disk as the branch's machine sees it, its own writable layer last. */
export function branchChain(replica: Replica, branch: BranchRecord, diskId: string): ImageFile[] {
  return [
    ...replica.chain(branch.pointId, diskId),
    { path: branchLayer(replica.layout, branch.branchId, diskId), format: 'qcow2' },
  ];
}

/** Removes a branch with everything in it; its record goes last, so that a removal that was cut short is repeated. */
export async function removeBranch(files: FileSystem, replica: Replica, branchId: string): Promise<void> {
  const { layout } = replica;
  const directory = layout.branch(branchId);
  for (const name of (await files.list(directory)) ?? []) {
    if (name !== 'branch.json') await files.removeDirectory(join(directory, name));
  }
  await files.removeDirectory(directory);
  await files.syncDirectory(dirname(directory));
  await replica.refreshBranches();
}

export async function listBranches(files: FileSystem, layout: ReplicaLayout): Promise<BranchRecord[]> {
  const branches: BranchRecord[] = [];
  for (const branchId of (await files.list(layout.branches)) ?? []) {
    const record = await loadRecord(files, recordPath(layout, branchId), BRANCH_RECORD);
    if (record) branches.push(record);
    else await files.removeDirectory(layout.branch(branchId));
  }
  return branches;
}

export function findBranch(replica: Replica, branchId: string): BranchRecord {
  const branch = replica.branches.find((candidate) => candidate.branchId === branchId);
  if (branch) return branch;
  throw replicaFailure('BRANCH_UNKNOWN', `${replica.record.machineName} has no branch ${branchId}`, {
    context: { branchId },
  });
}

function branchLayer(layout: ReplicaLayout, branchId: string, diskId: string): string {
  return join(layout.branch(branchId), `${diskId}.qcow2`);
}

function recordPath(layout: ReplicaLayout, branchId: string): string {
  return join(layout.branch(branchId), 'branch.json');
}
