import type { DiskImages, ImageFile, RunningMachine } from '../hypervisor/index.ts';
import { isFailure } from '../lib/errors.ts';
import { presentOf } from './chain.ts';
import { goneFailure } from './disk-changes.ts';
import { replicationFailure } from './errors.ts';
import type { ProtectedLayout } from './layout.ts';
import type { MachinePresence } from './machine-presence.ts';
import type { ChainTools, ProtectedChain } from './protected-chain.ts';
import type { MachineRecord, ProtectedDisk } from './records.ts';

type LockTools = Pick<ChainTools, 'files' | 'images'>;

/**
 * QEMU locks the images that it writes: a chain that can be opened for reading is written by nobody. A cut of unknown
 * outcome leaves two files that may be the one that is written. Throws PROTECTION_DISK_GONE for files that are not there.
 */
export async function isCertainlyStopped(
  tools: LockTools,
  disks: readonly ProtectedDisk[],
  protectedChain: Pick<ProtectedChain, 'chain' | 'intendedTips'>,
): Promise<boolean> {
  for (const { diskId } of presentOf(disks)) {
    const chain = protectedChain.chain(diskId);
    for (const { path } of chain) {
      const isThere = (await tools.files.sizeOf(path)) !== undefined;
      if (!isThere) throw goneFailure([{ diskId, said: `${path}, a file of ${diskId}, is not there` }]);
    }
    if (await isLocked(tools.images, chain)) return false;
    for (const tip of protectedChain.intendedTips(diskId)) {
      if (
        (await tools.files.sizeOf(tip.path)) !== undefined &&
        (await isLocked(tools.images, [...chain, tip]))
      )
        return false;
    }
  }
  return true;
}

/**
 * Whether a process has layers of ours open for writing: the machine shows them, or something that is not to be reached
 * holds a tip. What runs on the owner's files alone does not count.
 */
export async function mayRunOnLayers(
  tools: LockTools,
  layout: ProtectedLayout,
  disks: readonly ProtectedDisk[],
  protectedChain: ProtectedChain,
  running: RunningMachine | undefined,
): Promise<boolean> {
  const ours = `${layout.disks}/`;
  const shown = (await running?.disks())?.flatMap(({ chain }) => chain) ?? [];
  if (shown.some(({ path }) => path.startsWith(ours))) return true;
  for (const { diskId } of disks) {
    const tips = [protectedChain.chain(diskId).at(-1)!, ...protectedChain.intendedTips(diskId)];
    for (const tip of tips.filter(({ path }) => path.startsWith(ours))) {
      const isThere = (await tools.files.sizeOf(tip.path)) !== undefined;
      if (isThere && (await isLocked(tools.images, [tip]))) return true;
    }
  }
  return false;
}

/** Nobody can read the disk: its files are not there, or damaged. Of a machine that runs they are in use, and not looked into. */
export async function isLost(
  { images, files }: LockTools,
  chain: readonly ImageFile[],
  isRunning: boolean,
): Promise<boolean> {
  for (const { path } of chain) if ((await files.sizeOf(path)) === undefined) return true;
  if (isRunning) return false;
  try {
    await isLocked(images, chain);
    return false;
  } catch (error) {
    if (isFailure(error, 'IMAGE_UNREADABLE')) return true;
    throw error;
  }
}

/** Somebody has a file of the chain open for writing. */
export async function isLocked(images: DiskImages, chain: readonly ImageFile[]): Promise<boolean> {
  try {
    await using _reader = await images.open(chain);
    return false;
  } catch (error) {
    if (isFailure(error, 'IMAGE_UNREADABLE') && /Failed to (get .* )?lock/.test(error.message)) return true;
    throw error;
  }
}

/**
 * Throws PROTECTION_EXISTS: layers that a process may write to are not set aside; PROTECTION_DIVERGED: nor are those of a branch, unless
 * somebody `overrules` the claim that has made it one, or what they lie upon has been written, which leaves no other way out.
 */
export function checkGivenUp(
  { name, diverged, tenure }: Pick<MachineRecord, 'name' | 'diverged' | 'tenure'>,
  o: { readonly mayBeWritten: boolean; readonly overrules: boolean; readonly presence: MachinePresence },
): void {
  const isMeant = (o.overrules && tenure?.state === 'fenced') || o.presence.state === 'stale';
  if (diverged && !isMeant) {
    const said = `what ${name} wrote here is kept as ${diverged.name}, and lies in its layers`;
    throw replicationFailure('PROTECTION_DIVERGED', said, { context: { branchId: diverged.branchId } });
  }
  if (!o.mayBeWritten) return;
  throw replicationFailure('PROTECTION_EXISTS', `a process runs on the layers of ${name}, or may do so`, {
    hint: 'Stop it first, or unprotect the machine without giving its layers up.',
  });
}
