import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { assert } from '../lib/assert.ts';
import type { FileSystem } from '../lib/files.ts';
import { blockCount, DIGEST_BYTES } from './blocks.ts';
import type { Leaf } from './digest-tree.ts';
import { deltaFailure } from './errors.ts';
import {
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  DISK_BYTES_MAX,
  FORMAT_VERSION,
  isPowerOfTwo,
  readU64,
  writeU64,
} from './format.ts';
import type { LayerLeaves } from './leaves.ts';

/** `\x89WSL\r\n\x1a\n` */
const LEAVES_MAGIC = Buffer.from('8957534c0d0a1a0a', 'hex');
const HEAD_BYTES = 32;
const ENTRY_BYTES = 8 + DIGEST_BYTES;
const FILE_BYTES_MAX = 4 * 1024 ** 3;
/** Entries of the first piece, and of the largest (about 1 MiB): most files have but a few. */
const ENTRIES_AT_FIRST = 256;
const ENTRIES_AT_ONCE = 26_000;
const READ_BYTES = 1024 * 1024;

/** A leaves file in memory. `leaves` reads entries where they lie; nothing else is allocated for them. */
export interface LeavesFile extends LayerLeaves {
  /** Number of leaves listed. */
  readonly count: number;
}

/** The file as pieces of 1 MiB at the most. Leaves out of order or out of range are bugs and meet assertions. */
export function* encodeLeaves(layer: LayerLeaves): Generator<Buffer> {
  const { sizeBytes, blockBytes, inheritedBlocks } = layer;
  const blocks = blockCount(sizeBytes, blockBytes);
  assert(isPowerOfTwo(blockBytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX), `block size ${blockBytes}`);
  assert(sizeBytes >= 1 && sizeBytes <= DISK_BYTES_MAX, `disk size ${sizeBytes}`);
  assert(inheritedBlocks >= 0 && inheritedBlocks <= blocks, `inherited blocks ${inheritedBlocks}`);
  const sum = createHash('sha256');
  const head = Buffer.alloc(HEAD_BYTES);
  LEAVES_MAGIC.copy(head);
  head.writeUInt32BE(FORMAT_VERSION, 8);
  head.writeUInt32BE(blockBytes, 12);
  writeU64(head, sizeBytes, 16);
  writeU64(head, inheritedBlocks, 24);
  sum.update(head);
  yield head;
  let piece = Buffer.alloc(ENTRIES_AT_FIRST * ENTRY_BYTES);
  let used = 0;
  let last = -1;
  for (const { index, digest } of layer.leaves) {
    assert(index > last && index < blocks, `leaf ${index} after ${last}, of ${blocks} blocks`);
    assert(digest.length === DIGEST_BYTES, 'a leaf has 32 bytes');
    last = index;
    writeU64(piece, index, used);
    piece.set(digest, used + 8);
    used += ENTRY_BYTES;
    if (used < piece.length) continue;
    sum.update(piece);
    yield piece;
    piece = Buffer.alloc(Math.min(2 * piece.length, ENTRIES_AT_ONCE * ENTRY_BYTES));
    used = 0;
  }
  sum.update(piece.subarray(0, used));
  yield piece.subarray(0, used);
  yield sum.digest();
}

/**
 * Publishes the file: written aside (`path + '.new'`: one writer per path), synced, renamed, directory synced,
 * in that order. Durable on return. Throws what `FileSystem` throws, and DELTA_LEAVES_LIMIT above 4 GiB.
 */
export async function writeLeaves(files: FileSystem, path: string, layer: LayerLeaves): Promise<void> {
  const aside = `${path}.new`;
  await files.remove(aside);
  const handle = await files.open(aside, 'create');
  try {
    let position = 0;
    for (const piece of encodeLeaves(layer)) {
      if (position + piece.length > FILE_BYTES_MAX) throw tooLarge(path, position + piece.length);
      await handle.write(piece, position);
      position += piece.length;
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
  await files.rename(aside, path);
  await files.syncDirectory(dirname(path));
}

/**
 * The whole file, checked to its last byte before any of it is given out: DELTA_LEAVES_CORRUPT for damage,
 * DELTA_NEWER for a version that is not known, DELTA_LEAVES_LIMIT above 4 GiB, FILE_UNREADABLE if it is missing.
 */
export async function readLeaves(files: FileSystem, path: string): Promise<LeavesFile> {
  const handle = await files.open(path, 'read');
  try {
    const size = await handle.sizeBytes();
    if (size > FILE_BYTES_MAX) throw tooLarge(path, size);
    const bytes = Buffer.allocUnsafeSlow(size);
    const sum = createHash('sha256');
    const summed = Math.max(0, size - DIGEST_BYTES);
    for (let at = 0; at < size; at += READ_BYTES) {
      const part = bytes.subarray(at, Math.min(at + READ_BYTES, size));
      if ((await handle.read(part, at)) < part.length)
        throw corrupt(path, 'it became shorter while it was read');
      sum.update(bytes.subarray(at, Math.max(at, Math.min(at + part.length, summed))));
    }
    return decode(bytes, sum.digest(), path);
  } finally {
    await handle.close();
  }
}

/** The same from memory; `source` names the bytes in failures. */
export function decodeLeaves(bytes: Buffer, source: string): LeavesFile {
  const sum = createHash('sha256').update(bytes.subarray(0, Math.max(0, bytes.length - DIGEST_BYTES)));
  return decode(bytes, sum.digest(), source);
}

function decode(bytes: Buffer, sum: Buffer, source: string): LeavesFile {
  const entriesEnd = bytes.length - DIGEST_BYTES;
  if (entriesEnd < HEAD_BYTES) throw corrupt(source, 'it is too short');
  if (!bytes.subarray(0, LEAVES_MAGIC.length).equals(LEAVES_MAGIC))
    throw corrupt(source, 'its magic is wrong');
  if (!sum.equals(bytes.subarray(entriesEnd))) throw corrupt(source, 'its SHA-256 differs');
  const version = bytes.readUInt32BE(8);
  if (version > FORMAT_VERSION) {
    throw deltaFailure('DELTA_NEWER', `${source} has version ${version}; known here: ${FORMAT_VERSION}`, {
      context: { source, version },
    });
  }
  if (version < 1) throw corrupt(source, 'it has version 0');
  const blockBytes = bytes.readUInt32BE(12);
  const sizeBytes = readU64(bytes, 16);
  const inheritedBlocks = readU64(bytes, 24);
  if (!isPowerOfTwo(blockBytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX))
    throw corrupt(source, `block size ${blockBytes}`);
  if (sizeBytes === undefined || sizeBytes < 1 || sizeBytes > DISK_BYTES_MAX) {
    throw corrupt(source, 'its disk size is out of range');
  }
  const blocks = blockCount(sizeBytes, blockBytes);
  if (inheritedBlocks === undefined || inheritedBlocks > blocks) {
    throw corrupt(source, 'it inherits more blocks than there are');
  }
  if ((entriesEnd - HEAD_BYTES) % ENTRY_BYTES !== 0)
    throw corrupt(source, 'its length does not fit its entries');
  const entries = bytes.subarray(HEAD_BYTES, entriesEnd);
  checkOrder(entries, blocks, source);
  return {
    sizeBytes,
    blockBytes,
    inheritedBlocks,
    count: entries.length / ENTRY_BYTES,
    leaves: { [Symbol.iterator]: () => leavesOf(entries) },
  };
}

function checkOrder(entries: Buffer, blocks: number, source: string): void {
  let last = -1;
  for (let at = 0; at < entries.length; at += ENTRY_BYTES) {
    const index = readU64(entries, at);
    if (index === undefined || index <= last || index >= blocks) {
      throw corrupt(source, `entry ${at / ENTRY_BYTES} is out of order or out of range`);
    }
    last = index;
  }
}

function* leavesOf(entries: Buffer): Generator<Leaf> {
  for (let at = 0; at < entries.length; at += ENTRY_BYTES) {
    yield { index: readU64(entries, at)!, digest: entries.subarray(at + 8, at + ENTRY_BYTES) };
  }
}

function corrupt(source: string, why: string): Error {
  return deltaFailure('DELTA_LEAVES_CORRUPT', `${source} is not a valid leaves file: ${why}`, {
    context: { source },
  });
}

function tooLarge(source: string, sizeBytes: number): Error {
  return deltaFailure('DELTA_LEAVES_LIMIT', `${source} has ${sizeBytes} bytes; 4 GiB are allowed`, {
    context: { source, sizeBytes },
  });
}
