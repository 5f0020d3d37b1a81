import { hash } from 'node:crypto';

export const DIGEST_BYTES = 32;

const ZEROS = Buffer.alloc(64 * 1024);

/** Digests of zero blocks by length; a few lengths ever occur (block sizes and the ends of disks). */
const zeroDigests = new Map<number, Buffer>();
const ZERO_DIGESTS_MAX = 256;

/** The leaf of a block: its SHA-256. */
export function blockDigest(data: Uint8Array): Buffer {
  return hash('sha256', data, 'buffer');
}

/** The leaf of `length` zero bytes. Shared: not to be written to. */
export function zeroBlockDigest(length: number): Buffer {
  const known = zeroDigests.get(length);
  if (known) return known;
  const digest = blockDigest(length <= ZEROS.length ? ZEROS.subarray(0, length) : Buffer.alloc(length));
  if (zeroDigests.size >= ZERO_DIGESTS_MAX) zeroDigests.clear();
  zeroDigests.set(length, digest);
  return digest;
}

/** Whether every byte is zero; true for no bytes. Runs at the speed of memory. */
export function isAllZero(data: Uint8Array): boolean {
  if (data.length > 0 && (data[0] !== 0 || data[data.length - 1] !== 0)) return false;
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const end = Math.min(at + ZEROS.length, bytes.length);
    if (bytes.compare(ZEROS, 0, end - at, at, end) !== 0) return false;
  }
  return true;
}

/** Blocks of a disk, the last of which may be short. */
export function blockCount(sizeBytes: number, blockBytes: number): number {
  return Math.ceil(sizeBytes / blockBytes);
}

/** The length of one block: `blockBytes`, or what is left for the last. */
export function blockLength(sizeBytes: number, blockBytes: number, index: number): number {
  return Math.min(blockBytes, sizeBytes - index * blockBytes);
}
