/** Numbers of the format that reading and writing share (QEMU docs/interop/qcow2.txt). */

/** «QFI» and 0xfb. */
export const MAGIC = 0x514649fb;

export const INCOMPATIBLE_DIRTY = 1n << 0n;
export const INCOMPATIBLE_CORRUPT = 1n << 1n;
export const INCOMPATIBLE_DATA_FILE = 1n << 2n;
export const INCOMPATIBLE_COMPRESSION_TYPE = 1n << 3n;
export const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n;

export const BACKING_FORMAT_EXTENSION = 0xe2792aca;
export const BITMAPS_EXTENSION = 0x23852875;
export const DATA_FILE_EXTENSION = 0x44415441;
