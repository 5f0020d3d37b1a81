import type { FileSystem } from '../lib/files.ts';
import { emptyLayerBytes } from '../qcow2/index.ts';
import { happened, presentOf, sizeAt } from './chain.ts';
import type { CutRecord, ProtectedDisk } from './records.ts';

/** How much one tip has grown since it was laid. */
export interface TipGrowth {
  readonly deviceName: string;
  /** The length of its file. */
  readonly fileBytes: number;
  /** What of that an empty layer does not have: clusters that have been written to, and the tables that name them. */
  readonly grownBytes: number;
}

/**
 * How much the tips that the last cut laid have grown since. A layer only ever grows: what is written again in the same
 * place takes no more room, nor does what is discarded. Disks that no cut has had yet are not among them.
 */
export async function tipGrowth(
  files: Pick<FileSystem, 'sizeOf'>,
  disks: readonly ProtectedDisk[],
  cuts: readonly CutRecord[],
): Promise<TipGrowth[]> {
  const last = happened(cuts).at(-1);
  const grown: TipGrowth[] = [];
  for (const disk of presentOf(disks)) {
    const tip = last?.tips[disk.diskId];
    const fileBytes = tip && (await files.sizeOf(tip.path));
    if (fileBytes === undefined) continue;
    const grownBytes = Math.max(0, fileBytes - emptyLayerBytes(sizeAt(disk, last)));
    grown.push({ deviceName: disk.deviceName, fileBytes, grownBytes });
  }
  return grown;
}

/** The sum over all disks. */
export function grownTogether(tips: readonly TipGrowth[]): number {
  return tips.reduce((sum, { grownBytes }) => sum + grownBytes, 0);
}
