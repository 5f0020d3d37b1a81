import type { DeltaHeader, DeltaTrailer } from './header.ts';

/** How far a delta has come: what a receiver keeps with the bytes it made durable, to resume from there. */
export interface DeltaProgress {
  /** Frames between header and trailer so far; the number of the next one. */
  readonly frames: number;
  /** Guest bytes of data frames, and of those that say `same`. */
  readonly dataBytes: number;
  readonly zeroBytes: number;
  /** Index of the disk of the last frame, and where that frame ended; 0 and 0 before the first. */
  readonly disk: number;
  readonly endOffset: number;
}

export const NOTHING_RECEIVED: DeltaProgress = {
  frames: 0,
  dataBytes: 0,
  zeroBytes: 0,
  disk: 0,
  endOffset: 0,
};

/** One range of one disk: of data, of zeros, or of what an older copy at the receiver holds there. */
export interface DeltaRange {
  readonly type: 'data' | 'zero' | 'same';
  readonly disk: number;
  readonly offset: number;
  readonly length: number;
}

/** The progress once `range` has been taken in. */
export function progressAfter(progress: DeltaProgress, range: DeltaRange): DeltaProgress {
  const { type, disk, offset, length } = range;
  return {
    frames: progress.frames + 1,
    dataBytes: progress.dataBytes + (type === 'zero' ? 0 : length),
    zeroBytes: progress.zeroBytes + (type === 'zero' ? length : 0),
    disk,
    endOffset: offset + length,
  };
}

/**
 * Names the rule of docs/format.md, «Order and numbers», that `range` breaks as the next one after `progress`;
 * undefined if it may follow. The encoder asserts with it, the decoder refuses with it.
 */
export function orderFault(
  header: DeltaHeader,
  progress: DeltaProgress,
  range: DeltaRange,
): string | undefined {
  const { disk, offset, length } = range;
  const known = header.disks[disk];
  if (!known) return `there is no disk ${disk}`;
  if (length < 1) return 'the range is empty';
  const end = offset + length;
  if (end > known.sizeBytes) return `the range ends at ${end}, beyond the disk's ${known.sizeBytes} bytes`;
  if (disk < progress.disk) return `disk ${disk} comes after disk ${progress.disk}`;
  if (disk === progress.disk && offset < progress.endOffset) {
    return `offset ${offset} lies before ${progress.endOffset}, where the last range ended`;
  }
  if (offset % header.granularityBytes !== 0) return `offset ${offset} is not aligned`;
  if (end % header.granularityBytes !== 0 && end !== known.sizeBytes) return `end ${end} is not aligned`;
  return range.type === 'same' ? sameFault(header, range, known.sizeBytes) : undefined;
}

/** What is left out of the stream is whole blocks, because their digests are all that vouches for them. */
function sameFault(
  { blockBytes, parent }: DeltaHeader,
  { offset, length }: DeltaRange,
  sizeBytes: number,
): string | undefined {
  if (parent !== null) return 'only a delta that is complete by itself is laid upon an older copy';
  const end = offset + length;
  const isWhole = offset % blockBytes === 0 && (end % blockBytes === 0 || end === sizeBytes);
  return isWhole ? undefined : `${offset}+${length} is not whole blocks`;
}

/** Names what differs between the trailer's counts and what came, or undefined. */
export function countFault(progress: DeltaProgress, trailer: DeltaTrailer): string | undefined {
  for (const name of ['frames', 'dataBytes', 'zeroBytes'] as const) {
    if (trailer[name] !== progress[name]) return `${name} says ${trailer[name]}; ${progress[name]} came`;
  }
  return undefined;
}
