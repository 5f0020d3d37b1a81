import { assert } from '../lib/assert.ts';
import { type Extents, endOf, NO_EXTENTS } from '../lib/extents.ts';
import { blockCount, blockLength, zeroBlockDigest } from './blocks.ts';
import { DigestTree, type Leaf } from './digest-tree.ts';
import { deltaFailure } from './errors.ts';

/** The leaves that one layer changed; see docs/format.md, «Leaves file». */
export interface LayerLeaves {
  /** Size of the disk at this layer. */
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /**
   * A block that is not listed is as in the older layer if its index is below this, and zero otherwise; 0 in the
   * oldest layer. `inheritedBlocks()` computes it.
   */
  readonly inheritedBlocks: number;
  /** Ascending by index, each index once; can be gone through again and again. */
  readonly leaves: Iterable<Leaf>;
}

/**
 * How many leading blocks a layer has in common with its parent, so that leaving one out of its leaves means
 * «as in the parent»: all where the sizes are equal, else those that are whole in both. `parentSizeBytes` is null
 * for the oldest layer.
 */
export function inheritedBlocks(
  parentSizeBytes: number | null,
  sizeBytes: number,
  blockBytes: number,
): number {
  if (parentSizeBytes === null) return 0;
  if (parentSizeBytes === sizeBytes) return blockCount(sizeBytes, blockBytes);
  return Math.floor(Math.min(parentSizeBytes, sizeBytes) / blockBytes);
}

/**
 * The short block at the end of the parent's disk, as far as a disk of another size still has it: its digest is another one,
 * even if nobody wrote there. Empty where the sizes are equal, or the parent's disk ended with a whole block.
 */
export function endBlock(parent: DigestTree | undefined, sizeBytes: number): Extents {
  if (parent === undefined || parent.sizeBytes === sizeBytes) return NO_EXTENTS;
  const { blockBytes } = parent;
  const end = Math.min(parent.sizeBytes, sizeBytes);
  if (end % blockBytes === 0) return NO_EXTENTS;
  const offset = Math.floor(end / blockBytes) * blockBytes;
  return [{ offset, length: Math.min(blockBytes, sizeBytes - offset) }];
}

/** The numbers of the blocks that `aligned`, ranges of whole blocks, holds, ascending. */
export function* blocksIn(aligned: Extents, blockBytes: number): Generator<number> {
  for (const extent of aligned) {
    const end = Math.ceil(endOf(extent) / blockBytes);
    for (let index = extent.offset / blockBytes; index < end; index++) yield index;
  }
}

/** What a tree holds of the blocks in `aligned`, ranges of whole blocks, as the leaves of a layer. */
export function leavesIn(tree: DigestTree, aligned: Extents): Iterable<Leaf> {
  return { [Symbol.iterator]: () => leavesOf(tree, aligned) };
}

function* leavesOf(tree: DigestTree, aligned: Extents): Generator<Leaf> {
  for (const index of blocksIn(aligned, tree.blockBytes)) yield { index, digest: tree.get(index) };
}

/**
 * The leaves of two neighbouring layers as one: where both list a block the younger's leaf counts. Lazy: nothing
 * is copied. Throws DELTA_LEAVES_CORRUPT if their block sizes differ.
 */
export function mergeLeaves(older: LayerLeaves, younger: LayerLeaves): LayerLeaves {
  if (older.blockBytes !== younger.blockBytes) throw misfit('layers of one disk have one block size');
  return {
    sizeBytes: younger.sizeBytes,
    blockBytes: younger.blockBytes,
    inheritedBlocks: Math.min(older.inheritedBlocks, younger.inheritedBlocks),
    leaves: { [Symbol.iterator]: () => merged(older, younger) },
  };
}

function* merged(older: LayerLeaves, younger: LayerLeaves): Generator<Leaf> {
  const olds = older.leaves[Symbol.iterator]();
  let old = olds.next();
  for (const young of younger.leaves) {
    for (; !old.done && old.value.index < young.index; old = olds.next()) {
      if (old.value.index < younger.inheritedBlocks) yield old.value;
    }
    if (!old.done && old.value.index === young.index) old = olds.next();
    yield young;
  }
  for (; !old.done && old.value.index < younger.inheritedBlocks; old = olds.next()) yield old.value;
}

/**
 * Brings the tree of the parent to the state of the layer above it, its size included. Throws
 * DELTA_LEAVES_CORRUPT for a layer that cannot lie upon this parent; the tree is unchanged then.
 */
export function applyLeaves(tree: DigestTree, layer: LayerLeaves): void {
  if (tree.blockBytes !== layer.blockBytes) throw misfit('layers of one disk have one block size');
  if (layer.inheritedBlocks > inheritedBlocks(tree.sizeBytes, layer.sizeBytes, layer.blockBytes)) {
    throw misfit('a layer inherits blocks that its parent does not have');
  }
  const stale = tree.resize(layer.sizeBytes);
  const gone = [...tree.nonZeroLeaves()].filter(({ index }) => index >= layer.inheritedBlocks);
  for (const { index } of gone) tree.set(index, zeroLeaf(layer, index));
  if (stale !== undefined) tree.set(stale, zeroLeaf(layer, stale));
  for (const { index, digest } of layer.leaves) tree.set(index, digest);
}

/** The tree of a disk from the leaves of its layers, oldest first. Throws DELTA_LEAVES_CORRUPT. */
export function treeOfLayers(layers: readonly LayerLeaves[]): DigestTree {
  const oldest = layers[0];
  assert(oldest !== undefined, 'a chain has a layer');
  if (oldest.inheritedBlocks !== 0) throw misfit('the oldest layer of a chain inherits nothing');
  const tree = new DigestTree(oldest);
  for (const layer of layers) applyLeaves(tree, layer);
  return tree;
}

function zeroLeaf(layer: LayerLeaves, index: number): Buffer {
  return zeroBlockDigest(blockLength(layer.sizeBytes, layer.blockBytes, index));
}

function misfit(why: string): Error {
  return deltaFailure('DELTA_LEAVES_CORRUPT', `the leaves of these layers do not fit each other: ${why}`);
}
