import { assert } from './assert.ts';

/** What goes past the page cache is whole pages of this size, at a multiple of it, from memory that begins at one. */
export const PAGE_BYTES = 4096;

/**
 * Memory for `FileHandle.writeDirect`: zeroed, beginning at a page border. A plain Buffer begins anywhere. V8 gives an
 * ArrayBuffer that can be resized whole pages of its own; that is its habit and no promise, so that whoever writes from it
 * must be able to go on when the system refuses it.
 */
export function alignedBuffer(sizeBytes: number): Buffer {
  assert(sizeBytes % PAGE_BYTES === 0, `${sizeBytes} bytes are not whole pages`);
  return Buffer.from(new ArrayBuffer(sizeBytes, { maxByteLength: sizeBytes }));
}
