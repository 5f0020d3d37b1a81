import { dirname, join } from 'node:path';
import type { ImageFile } from '../hypervisor/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { createEmptyLayer, type LayerBacking } from '../qcow2/index.ts';
import { checkBranch } from './depth.ts';
import { replicaFailure } from './errors.ts';
import { layerName, type ReplicaLayout } from './layout.ts';
import { BRANCH_RECORD, type BranchRecord, branchKind } from './records.ts';
import type { Trunk, TrunkState } from './trunk.ts';

type Layout = Pick<ReplicaLayout, 'branches' | 'branch'>;

/**
 * Makes a writable child of a point: an empty layer for each disk, whose backing file is the point's own, or that of the
 * prepared branch `base`. The point stays as long as the branch does. The record is written first, so that a half-made branch is found and removed.
 * Throws BRANCH_NAME_TAKEN, BRANCH_UNKNOWN when `base` has gone, REPLICA_TOO_DEEP for other purposes than a failover.
 */
export async function createBranch(
  files: FileSystem,
  replica: Trunk,
  branch: Omit<BranchRecord, 'diskIds'>,
): Promise<BranchRecord> {
  const { layout } = replica;
  replica.checkUsable();
  const { disks } = replica.point(branch.pointId).statement;
  const record: BranchRecord = { ...branch, diskIds: disks.map(({ diskId }) => diskId) };
  const directory = layout.branch(branch.branchId);
  try {
    await replica.refreshBranches(async () => {
      checkBranchName(replica, branch.name);
      checkBranch(replica, branch);
      if (branch.base !== undefined) findBranch(replica, branch.base);
      await files.makeDirectory(directory);
      await storeRecord(files, recordPath(layout, branch.branchId), branchKind(record), record);
    });
    // From here on the point stays; retention may have taken it just before.
    const state = replica.point(branch.pointId);
    for (const { diskId, sizeBytes } of disks) {
      const shape = { sizeBytes, backing: backingOf(branch, state, diskId) };
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

/** What the layer of a branch lies upon, as its header says it. */
function backingOf(
  { base, pointId }: Pick<BranchRecord, 'base' | 'pointId'>,
  { tips }: TrunkState,
  diskId: string,
): LayerBacking {
  const tip = tips?.[diskId];
  if (tip) return { name: tip.path, format: tip.format };
  const name =
    base === undefined
      ? join('..', '..', 'disks', diskId, layerName(pointId))
      : join('..', base, `${diskId}.qcow2`);
  return { name, format: 'qcow2' };
}

/** The files of a disk as the branch's machine sees it, its own writable layer last. */
export function branchChain(replica: Trunk, branch: BranchRecord, diskId: string): ImageFile[] {
  const own = branch.base === undefined ? [branch.branchId] : [branch.base, branch.branchId];
  return [
    ...replica.chain(branch.pointId, diskId),
    ...own.map((id) => ({ path: branchLayer(replica.layout, id, diskId), format: 'qcow2' as const })),
  ];
}

/**
 * Removes a branch with everything in it; its record goes last, so that a removal that was cut short is repeated. Throws
 * BRANCH_NEEDED for one that others lie on.
 */
export async function removeBranch(files: FileSystem, replica: Trunk, branchId: string): Promise<void> {
  const { layout } = replica;
  const directory = layout.branch(branchId);
  const remove = async () => {
    for (const name of (await files.list(directory)) ?? []) {
      if (name !== 'branch.json') await files.removeDirectory(join(directory, name));
    }
    await files.removeDirectory(directory);
    await files.syncDirectory(dirname(directory));
  };
  const isPrepared = replica.branches.some(
    (branch) => branch.branchId === branchId && branch.purpose === 'prepared',
  );
  try {
    if (!isPrepared) await remove();
  } finally {
    // Also of a removal that failed after its files were gone: nobody boots what is no branch any more.
    // Beside the making of others: none may come to lie on what goes.
    await replica.refreshBranches(async () => {
      if (!isPrepared) return;
      checkNothingAbove(replica, branchId);
      await remove();
    });
  }
}

function checkNothingAbove(replica: Trunk, branchId: string): void {
  const above = replica.branches.filter(({ base }) => base === branchId).map((branch) => branch.branchId);
  if (above.length === 0) return;
  const said = `branches of ${replica.record.machineName} lie on ${branchId}: ${above.join(', ')}`;
  throw replicaFailure('BRANCH_NEEDED', said, { context: { branchId, above: above.join(', ') } });
}

export async function listBranches(files: FileSystem, layout: Layout): Promise<BranchRecord[]> {
  const branches: BranchRecord[] = [];
  for (const branchId of (await files.list(layout.branches)) ?? []) {
    const record = await loadRecord(files, recordPath(layout, branchId), BRANCH_RECORD);
    if (record) branches.push(record);
    else await files.removeDirectory(layout.branch(branchId));
  }
  return branches;
}

/** By id, or by the name that a person gave it. */
export function findBranch(replica: Trunk, reference: string): BranchRecord {
  const branch = replica.branches.find(({ branchId, name }) => branchId === reference || name === reference);
  if (branch) return branch;
  throw replicaFailure('BRANCH_UNKNOWN', `${replica.record.machineName} has no branch ${reference}`, {
    context: { branch: reference },
  });
}

/** `name`, or the first of `name-2`, `name-3` … that no branch of the replica has. */
export function freeBranchName(replica: Trunk, name: string): string {
  const taken = new Set(replica.branches.map((branch) => branch.name));
  for (let number = 1; ; number++) {
    const candidate = number === 1 ? name : `${name}-${number}`;
    if (!taken.has(candidate)) return candidate;
  }
}

/** No branch has the name. Throws BRANCH_NAME_TAKEN. */
export function checkBranchName(replica: Trunk, name: string | undefined): void {
  const other = replica.branches.find((branch) => branch.name === name);
  if (name === undefined || !other) return;
  const said = `branch ${other.branchId} of ${replica.record.machineName} has the name «${name}»`;
  throw replicaFailure('BRANCH_NAME_TAKEN', said, { context: { branchId: other.branchId, name } });
}

/** The writable layer of a branch. */
export function branchLayer(layout: Layout, branchId: string, diskId: string): string {
  return join(layout.branch(branchId), `${diskId}.qcow2`);
}

function recordPath(layout: Layout, branchId: string): string {
  return join(layout.branch(branchId), 'branch.json');
}
