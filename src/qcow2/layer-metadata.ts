import { assert } from '../lib/assert.ts';
import type { FileHandle } from '../lib/files.ts';
import { BACKING_FORMAT_EXTENSION, INCOMPATIBLE_EXTENDED_L2, MAGIC } from './format.ts';
import {
  CLUSTER_BYTES,
  firstFreeClusterOf,
  HEADER_CLUSTER,
  L1_CLUSTER,
  type LayerShape,
  l1EntriesOf,
  REFCOUNT_TABLE_CLUSTER,
  REFCOUNTS_PER_BLOCK,
} from './layer-shape.ts';

const HEADER_LENGTH = 104;
/** Header, extensions and the longest backing name fit into this; the rest of the cluster is a hole. */
const HEADER_WRITE_BYTES = 4096;

/**
 * Writes what a finished layer needs besides data, L2 tables and the header: the L1 table, the refcount
 * blocks behind everything else, and the refcount table that points to them. Every cluster of the file has
 * exactly one reference.
 *
 * Returns the final size of the file, to which it has been set.
 */
export async function writeTables(
  file: FileHandle,
  shape: LayerShape,
  o: { tables: ReadonlyMap<number, number>; nextCluster: number },
): Promise<number> {
  const blocks = refcountBlocksFor(o.nextCluster);
  const clusters = o.nextCluster + blocks;
  const fileBytes = clusters * CLUSTER_BYTES;

  const l1 = Buffer.alloc(l1EntriesOf(shape) * 8);
  for (const [index, cluster] of o.tables) writeReference(l1, index * 8, cluster);
  await file.write(l1, L1_CLUSTER * CLUSTER_BYTES);

  // The rest of the refcount table stays a hole, and so does that of the last refcount block: a layer that
  // holds little costs little.
  const refcountTable = Buffer.alloc(blocks * 8);
  for (let i = 0; i < blocks; i++) {
    refcountTable.writeBigUInt64BE(BigInt((o.nextCluster + i) * CLUSTER_BYTES), i * 8);
  }
  await file.write(refcountTable, REFCOUNT_TABLE_CLUSTER * CLUSTER_BYTES);

  const ones = Buffer.alloc(Math.min(clusters * 2, CLUSTER_BYTES));
  for (let i = 1; i < ones.length; i += 2) ones[i] = 1;
  for (let i = 0; i < blocks; i++) {
    const covered = Math.min(REFCOUNTS_PER_BLOCK, clusters - i * REFCOUNTS_PER_BLOCK);
    await file.write(ones.subarray(0, covered * 2), (o.nextCluster + i) * CLUSTER_BYTES);
  }
  await file.truncate(fileBytes);
  return fileBytes;
}

/** The smallest number of refcount blocks that covers `clusters` and the blocks themselves. */
function refcountBlocksFor(clusters: number): number {
  // Each block covers itself and this many others.
  const blocks = Math.ceil(clusters / (REFCOUNTS_PER_BLOCK - 1));
  assert(blocks <= CLUSTER_BYTES / 8, `${clusters} clusters outgrow a refcount table of one cluster`);
  return blocks;
}

function writeReference(target: Buffer, at: number, cluster: number): void {
  const place = cluster * CLUSTER_BYTES;
  target.writeUInt32BE(0x80000000 + Math.floor(place / 2 ** 32), at);
  target.writeUInt32BE(place % 2 ** 32, at + 4);
}

/** Writes the header, by which the file becomes a qcow2 image. */
export async function writeHeader(file: FileHandle, shape: LayerShape): Promise<void> {
  await file.write(encodeHeader(shape), HEADER_CLUSTER * CLUSTER_BYTES);
}

/**
 * Makes header, refcount table and L1 table read as zero again, durably, where an earlier `writeTables` and
 * `writeHeader` may have left something: the file is no qcow2 image afterwards. Does nothing if it is blank.
 */
export async function eraseFixedParts(file: FileHandle, shape: LayerShape): Promise<void> {
  const present = Buffer.alloc(firstFreeClusterOf(shape) * CLUSTER_BYTES);
  const length = await file.read(present, 0);
  if (isZero(present)) return;
  await file.write(Buffer.alloc(length), 0);
  await file.sync();
}

function isZero(bytes: Buffer): boolean {
  return bytes.equals(Buffer.alloc(bytes.length));
}

function encodeHeader(shape: LayerShape): Buffer {
  const header = Buffer.alloc(HEADER_WRITE_BYTES);
  header.writeUInt32BE(MAGIC, 0);
  header.writeUInt32BE(3, 4); // version
  header.writeUInt32BE(Math.log2(CLUSTER_BYTES), 20);
  header.writeBigUInt64BE(BigInt(shape.sizeBytes), 24);
  header.writeUInt32BE(l1EntriesOf(shape), 36);
  header.writeBigUInt64BE(BigInt(L1_CLUSTER * CLUSTER_BYTES), 40);
  header.writeBigUInt64BE(BigInt(REFCOUNT_TABLE_CLUSTER * CLUSTER_BYTES), 48);
  header.writeUInt32BE(1, 56); // clusters of the refcount table
  header.writeBigUInt64BE(INCOMPATIBLE_EXTENDED_L2, 72);
  header.writeUInt32BE(4, 96); // refcount order: 1 << 4 bits
  header.writeUInt32BE(HEADER_LENGTH, 100);
  // Not written because zero: encryption, snapshots, compatible and autoclear features. Zero also is the
  // type of the extension that ends the extensions.
  if (shape.backing !== null) {
    header.writeUInt32BE(BACKING_FORMAT_EXTENSION, HEADER_LENGTH);
    header.writeUInt32BE(shape.backing.format.length, HEADER_LENGTH + 4);
    header.write(shape.backing.format, HEADER_LENGTH + 8, 'ascii');
    // Format names are at most 8 bytes, so: extension header 8, name padded to 8, end of extensions 8.
    const nameOffset = HEADER_LENGTH + 24;
    const nameBytes = header.write(shape.backing.name, nameOffset, 'utf8');
    header.writeBigUInt64BE(BigInt(nameOffset), 8);
    header.writeUInt32BE(nameBytes, 16);
  }
  return header;
}
