/**
 * What has changed on a machine's disks, as bytes, and the digests that prove what a disk holds. The formats are
 * written down in docs/format.md; this folder is their one implementation.
 *
 * Nouns: a *delta* is what changed between two points; a *delta stream* its form on the wire and in files: preamble,
 * header frame, *pieces* (data, zero and same frames, numbered from 0), trailer frame. *Progress* is how far a receiver
 * came and where a resumed stream begins. A disk is divided into *blocks*; the SHA-256 of a block is its *leaf*; leaves
 * form the *digest tree* of the disk, whose *root* stands for content and size. A *layer* (differencing disk) has a
 * *leaves file* with the leaves that it changed; the trees of all points follow from the leaves of the layers.
 *
 * Promises: a decoder reads any bytes with bounded memory and ends in frames or in a Failure, never in an assertion or
 * a hang of its own; it gives out no frame whose CRC, order, bounds or alignment is wrong, and no trailer unless the
 * counts are right and the stream has ended. A stream that broke off (DELTA_TRUNCATED, worth resuming) differs from
 * a damaged one (DELTA_CORRUPT) and from a lying sender (DELTA_INVALID, DELTA_LIMIT). A leaves file is durable when
 * `writeLeaves` returns and entirely checked when `readLeaves` does.
 *
 * Does not promise: that the content is right. CRCs find accidents only; whoever stores frames computes the root
 * of what was stored and compares it with the signed statement before anything is published.
 *
 * Relies on: sources that do not write to their chunks again; SHA-256, CRC-32 and zstd of Node; for leaves files
 * a `FileSystem` that keeps its word about durability.
 */
export { blockCount, blockDigest, blockLength, DIGEST_BYTES, isAllZero, zeroBlockDigest } from './blocks.ts';
export {
  type DecodeOptions,
  type DeltaDataFrame,
  type DeltaFrame,
  type DeltaLimits,
  type DeltaSameFrame,
  type DeltaZeroFrame,
  decodeDelta,
} from './decoder.ts';
export { DigestTree, type Leaf } from './digest-tree.ts';
export { type DeltaPiece, type EncodeOptions, encodeDelta } from './encode-delta.ts';
export { type DeltaCompression, DeltaEncoder } from './encoder.ts';
export { DELTA_ERRORS } from './errors.ts';
export { BLOCK_BYTES_DEFAULT, DATA_FRAME_BYTES_MAX } from './format.ts';
export { type DeltaProgress, type DeltaRange, NOTHING_RECEIVED, progressAfter } from './frame-order.ts';
export type { DeltaDisk, DeltaHeader, DeltaTrailer } from './header.ts';
export {
  applyLeaves,
  blocksIn,
  endBlock,
  inheritedBlocks,
  type LayerLeaves,
  leavesIn,
  mergeLeaves,
  treeOfLayers,
} from './leaves.ts';
export { decodeLeaves, encodeLeaves, type LeavesFile, readLeaves, writeLeaves } from './leaves-file.ts';
