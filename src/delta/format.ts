/** The numbers of docs/format.md that encoder and decoder share. */

/** Written unless the receiver has said that it has an older copy of a disk: see docs/format.md, «Versioning». */
export const FORMAT_VERSION = 1;
/** Has frames of the type `same`. */
export const FORMAT_VERSION_SAME = 2;

/** `\x89WSD\r\n\x1a\n`: not ASCII, and destroyed by any transfer that mangles text. */
export const STREAM_MAGIC = Buffer.from('895753440d0a1a0a', 'hex');
export const PREAMBLE_BYTES = 16;

/** Guest bytes of one data frame at most. */
export const DATA_FRAME_BYTES_MAX = 1024 * 1024;
/** Leaves that a `same` frame carries at most: 1 MiB of the smallest blocks. */
export const LEAVES_BYTES_MAX = 8192;
export const HEADER_BYTES_MAX = 256 * 1024;
export const STATEMENT_BYTES_MAX = 4 * 1024 * 1024;
export const TRAILER_BYTES_MAX = STATEMENT_BYTES_MAX + 4096;

export const DISKS_MAX = 256;
export const DISK_BYTES_MAX = 2 ** 50;
export const BLOCK_BYTES_MIN = 4096;
export const BLOCK_BYTES_MAX = 1024 * 1024;
/** What writers use unless they have a reason: the cluster size of qcow2. */
export const BLOCK_BYTES_DEFAULT = 65_536;
export const GRANULARITY_BYTES_MIN = 512;

/** Whether `value` is a power of two in `[min, max]`. */
export function isPowerOfTwo(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max && (value & (value - 1)) === 0;
}

/** Writes a safe integer as 8 bytes. */
export function writeU64(target: Buffer, value: number, offset: number): void {
  target.writeUInt32BE(Math.floor(value / 2 ** 32), offset);
  target.writeUInt32BE(value % 2 ** 32, offset + 4);
}

/** Reads 8 bytes; undefined for a number above 2^53 − 1, which no offset, length or count may have. */
export function readU64(source: Buffer, offset: number): number | undefined {
  const value = source.readUInt32BE(offset) * 2 ** 32 + source.readUInt32BE(offset + 4);
  return Number.isSafeInteger(value) ? value : undefined;
}
