import type { DiskImages, ImageFile, MachineDisk, RunningMachine } from '../hypervisor/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import { readVirtualSize } from '../qcow2/index.ts';
import { chainOf, disksOf, happened, isThereAt, sizeAt } from './chain.ts';
import { replicationFailure } from './errors.ts';
import type { CutRecord, ProtectedDisk } from './records.ts';

const SECTOR_BYTES = 512;

/**
 * How large the disks are now, by their ids: their owner may have grown them since the last cut. `found` is what a running
 * machine says of them. A new tip must be as large, or the guest would lose its end. Throws PROTECTION_DISK_SHRUNK.
 */
export async function sizesNow(
  files: FileSystem,
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
  found: readonly MachineDisk[],
): Promise<Record<string, number>> {
  const sizes: Record<string, number> = {};
  for (const disk of disks) {
    const { diskId, deviceName } = disk;
    const before = sizeAt(disk, happened(cuts).at(-1));
    const there = found.find((candidate) => candidate.deviceName === deviceName);
    const now = there?.sizeBytes ?? (await sizeOf(files, chainOf(disk, cuts).at(-1)!)) ?? before;
    if (now < before) {
      throw replicationFailure(
        'PROTECTION_DISK_SHRUNK',
        `${diskId} had ${before} bytes at the last copy and has ${now} now`,
        { context: { diskId, before, now } },
      );
    }
    sizes[diskId] = now;
  }
  return sizes;
}

interface GrowthTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly log: Log;
}

/**
 * A disk may have been grown between the look at its size and the cut: its tip is then grown as well. Returns the sizes that the cut
 * has sealed, and the disks whose tip could not be grown (`short`).
 */
export async function followGrowth(
  tools: GrowthTools,
  disks: readonly ProtectedDisk[],
  cut: CutRecord,
  running: RunningMachine | undefined,
): Promise<Pick<CutRecord, 'sizes' | 'short'>> {
  const sizes: Record<string, number> = {};
  const grown: string[] = [];
  for (const disk of disksOf(disks, cut)) {
    const { diskId } = disk;
    const looked = sizeAt(disk, cut);
    const sealed = (await sizeOf(tools.files, cut.sealed[diskId]!)) ?? looked;
    sizes[diskId] = Math.max(looked, sealed);
    if (sealed > looked) grown.push(diskId);
  }
  return { sizes, ...(await shortTips(tools, disks, { ...cut, sizes, short: grown }, running)) };
}

/**
 * Grows the tips that are too small (`short`) to what their cut sealed, in the machine if it runs, else in their files, and returns
 * those that still are. Never throws for a tip that does not grow: the cut is made, and the next look at the machine tries it again.
 */
export async function shortTips(
  { images, log }: GrowthTools,
  disks: readonly ProtectedDisk[],
  cut: CutRecord,
  running: RunningMachine | undefined,
): Promise<Pick<CutRecord, 'short'>> {
  const short: string[] = [];
  for (const disk of disksOf(disks, cut)) {
    const { diskId, deviceName } = disk;
    if (!cut.short?.includes(diskId)) continue;
    const sizeBytes = sizeAt(disk, cut);
    try {
      if (running) await running.growDisk(deviceName, sizeBytes);
      else await images.grow(cut.tips[diskId]!, sizeBytes);
    } catch (error) {
      log.error('disk.tip-too-small', { diskId, sizeBytes, reason: messageOf(error) });
      short.push(diskId);
    }
  }
  return short.length > 0 ? { short } : {};
}

/**
 * Whether a copy would differ from the last one: something was written, a disk has grown, or disks have come or go. For a machine
 * that does not run.
 */
export async function hasUncutChanges(
  images: DiskImages,
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
): Promise<boolean> {
  const last = happened(cuts).at(-1);
  for (const disk of disks) {
    if (last && isThereAt(disk, last.ordinal) === (disk.leaving !== undefined)) return true;
    if (disk.leaving) continue;
    await using reader = await images.open(chainOf(disk, cuts));
    const { data, zero } = await reader.ownExtents(1);
    if (reader.sizeBytes !== sizeAt(disk, last) || data.length + zero.length > 0) return true;
  }
  return false;
}

/** Undefined for what does not tell: something raw that is no file, such as a volume. */
async function sizeOf(files: FileSystem, { path, format }: ImageFile): Promise<number | undefined> {
  if (format === 'qcow2') return await readVirtualSize(files, path);
  // As QEMU has it: a part of a sector at the end counts as a whole one.
  const fileBytes = Math.ceil(((await files.sizeOf(path)) ?? 0) / SECTOR_BYTES) * SECTOR_BYTES;
  return fileBytes === 0 ? undefined : fileBytes;
}
