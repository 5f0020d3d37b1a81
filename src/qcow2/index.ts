/**
 * The qcow2 format, as far as Warmsite touches it by itself: it reads headers and writes layers.
 *
 * Nouns:
 * - A **header** is what the first cluster of an image says about it: version, sizes, tables, features,
 *   backing name. `parseHeader` believes none of it: every field is bounded before it is handed on.
 * - A **layer** is a differencing disk of ours: a qcow2 v3 image with extended L2 entries, clusters of
 *   128 KiB and sub-clusters of 4 KiB, uncompressed. A sub-cluster is data, zero, or absent (the backing
 *   file shows through).
 * - A **layer writer** makes one layer, once, from front to back. It is not a general image writer.
 * - A **layer operation** is one write or zero; the sequence of them determines the file byte by byte.
 *
 * Promised:
 * - A file is a qcow2 image only once `LayerWriter.finish` has returned (or was about to): the magic is
 *   written last, after everything it stands for is durable.
 * - Allocation is a pure function of the layer's shape and operations, so an interrupted layer that is
 *   resumed from its durable operations ends as the same bytes as one that never was.
 * - Memory does not grow with the data: one L2 table (128 KiB) and some 50 bytes for each GiB touched.
 *
 * Relied on: `FileSystem` (lib/files.ts) for durability, and QEMU for reading. Nothing here reads guest
 * data back: readers are QEMU's, over NBD, with driver and backing named explicitly and never probed.
 *
 * Source: QEMU's docs/interop/qcow2.txt; implementation limits from its block/qcow2.h. The reasons for an
 * own writer, with its measurement, are in docs/adr/0002-own-layer-writer.md.
 */
export { createEmptyLayer } from './empty-layer.ts';
export { QCOW2_ERRORS } from './errors.ts';
export { type HeaderContext, parseHeader, type Qcow2Header, readHeader, readVirtualSize } from './header.ts';
export type { LayerOperation } from './layer-allocation.ts';
export {
  CLUSTER_BYTES,
  emptyLayerBytes,
  LAYER_BYTES_MAX,
  type LayerBacking,
  type LayerShape,
  SUBCLUSTER_BYTES,
} from './layer-shape.ts';
export { LayerWriter } from './layer-writer.ts';
