import { join } from 'node:path';
import type { DiskImages, ImageFile, RunningMachine } from '../hypervisor/index.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import { isId } from '../lib/random.ts';
import { happened, presentOf } from './chain.ts';
import { diskUnknown, withDisks, withoutDisk } from './disk-changes.ts';
import { isLost } from './image-locks.ts';
import type { ProtectedLayout } from './layout.ts';
import type { ProtectedChain } from './protected-chain.ts';
import type { MachineRecord, ProtectedDisk } from './records.ts';

interface LeavingTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly log: Log;
}

/** Commits layers into the owner's file, the oldest first. May be repeated as long as nobody else writes to it. */
export async function commitFiles(
  { files, images }: Pick<LeavingTools, 'files' | 'images'>,
  { chain }: Pick<ProtectedDisk, 'chain'>,
  layers: readonly ImageFile[],
): Promise<void> {
  for (const layer of layers) {
    if ((await files.sizeOf(layer.path)) !== undefined) await images.commit([...chain, layer]);
  }
}

/**
 * The record of a machine without a disk; what can never be read again is taken out of the copies that wait, too. Throws
 * PROTECTION_DISK_UNKNOWN, PROTECTION_DISK_LAST; nothing has changed then.
 */
export async function takenOut(
  tools: Pick<LeavingTools, 'images' | 'files'>,
  chain: ProtectedChain,
  record: MachineRecord,
  diskId: string,
  o: { readonly acknowledgedOrdinal: number; readonly isRunning: boolean },
): Promise<MachineRecord> {
  const { acknowledgedOrdinal } = o;
  const disk = presentOf(record.disks).find((known) => known.diskId === diskId);
  if (!disk) throw diskUnknown(record, diskId);
  const files = chain.chain(diskId);
  const layers = files.slice(disk.chain.length);
  const last = happened(chain.cuts).at(-1)?.ordinal ?? 0;
  const isGone = layers.length > 0 && (await isLost(tools, files, o.isRunning));
  const untilOrdinal = isGone ? Math.min(last, acknowledgedOrdinal) : last;
  const without = withoutDisk(record, diskId, { untilOrdinal, layers });
  if (isGone) await chain.dropFromUnsent(diskId, acknowledgedOrdinal);
  return without;
}

/** Ends what was interrupted, of a machine that may lack disks: that is what a person is about to say. */
export async function reconciledWithout(
  chain: ProtectedChain,
  running: RunningMachine | undefined,
): Promise<void> {
  try {
    await chain.reconcile(running);
  } catch (error) {
    if (!isFailure(error, 'PROTECTION_DISK_GONE')) throw error;
  }
}

/**
 * Gives disks back that were taken out of the protection: what lies above their owner's file is committed into it. Only
 * where nothing needs those layers any more, because a point without the disk has been acknowledged, and for a machine that
 * does not run: QEMU keeps the files of a disk open that has been unplugged. Done on the files alone, so that it can be
 * repeated: until the record that this returns is durable, nobody has been told that the file is whole. A disk for which it
 * fails stays as it is.
 */
export async function giveBack(
  tools: LeavingTools,
  record: MachineRecord,
  acknowledgedOrdinal: number,
): Promise<MachineRecord> {
  const given: ProtectedDisk[] = [];
  for (const disk of record.disks) {
    if (!disk.leaving || disk.leaving.untilOrdinal >= acknowledgedOrdinal) continue;
    try {
      // Where its owner has deleted it, there is nothing to give back.
      const isThere = (await tools.files.sizeOf(disk.chain.at(-1)!.path)) !== undefined;
      if (isThere) await commitFiles(tools, disk, disk.leaving.layers);
      given.push(disk);
    } catch (error) {
      if (!isFailure(error)) throw error;
      tools.log.warn('disk.not-given-back', { diskId: disk.diskId, reason: messageOf(error) });
    }
  }
  if (given.length === 0) return record;
  return {
    ...record,
    ...withDisks(
      record,
      record.disks.filter((disk) => !given.includes(disk)),
    ),
  };
}

/** Removes what is left of disks that are in the record no more. */
export async function removeFormer(
  { files }: Pick<LeavingTools, 'files'>,
  layout: ProtectedLayout,
  { disks, formerDisks = [] }: MachineRecord,
): Promise<void> {
  const here = new Set(disks.map(({ diskId }) => diskId));
  const gone = formerDisks.filter(({ diskId }) => !here.has(diskId));
  if (gone.length === 0) return;
  const left = new Set(await files.list(layout.disks));
  // Digests of further targets lie by their sites.
  const sites = ((await files.list(layout.leaves)) ?? [])
    .filter(isId)
    .map((siteId) => layout.leavesOf(siteId));
  for (const { diskId } of gone.filter((disk) => left.has(disk.diskId))) {
    for (const leaves of [layout.leaves, ...sites]) await files.removeDirectory(join(leaves, diskId));
    await files.removeDirectory(layout.disk(diskId));
    await files.syncDirectory(layout.disks);
  }
}
