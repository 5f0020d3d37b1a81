import { join } from 'node:path';
import { type FileSystem, publishFile, readSmallFile } from '../lib/files.ts';
import { TPM_STATE_BYTES_MAX, tpmStateOf } from '../recovery-point/index.ts';
import type { BranchRecord, Trunk, TrunkState } from '../replica/index.ts';

/** As its emulator calls it. */
const STATE_FILE = 'tpm2-00.permall';

/** Where the TPM of a branch has its state. */
export function branchTpmDirectory(replica: Trunk, branchId: string): string {
  return join(replica.layout.branch(branchId), 'tpm');
}

/**
 * Gives a branch the TPM of its point, of the prepared branch that it lies on, or of the machine whose disks it lies on, as its own copy: what its guest does to it, no other
 * one sees. One that it has already stays. A point without one leaves the directory empty, and the guest finds a new TPM.
 * Durable on return. Throws POINT_STATEMENT_INVALID where the point has another state than was signed.
 */
export async function branchTpm(files: FileSystem, replica: Trunk, branch: BranchRecord): Promise<string> {
  const { branchId, pointId, base } = branch;
  const directory = branchTpmDirectory(replica, branchId);
  const path = join(directory, STATE_FILE);
  await files.makeDirectory(directory);
  if ((await files.sizeOf(path)) !== undefined) return directory;
  const state =
    base === undefined
      ? await ofPoint(files, replica.point(pointId))
      : await readSmallFile(files, join(branchTpmDirectory(replica, base), STATE_FILE), TPM_STATE_BYTES_MAX);
  if (state) await publishFile(files, path, state);
  return directory;
}

async function ofPoint(
  files: FileSystem,
  { manifest: { signed }, tpmDirectory }: TrunkState,
): Promise<Buffer | undefined> {
  if (signed) return tpmStateOf(signed);
  if (tpmDirectory === undefined) return undefined;
  return readSmallFile(files, join(tpmDirectory, STATE_FILE), TPM_STATE_BYTES_MAX);
}
