import { backingNameTrouble } from './backing-name.ts';
import { qcow2Failure } from './errors.ts';

/** Unit of allocation in a layer's file. */
export const CLUSTER_BYTES = 128 * 1024;
/** Unit in which a layer knows data, zero and absent: a cluster has 32 of them. */
export const SUBCLUSTER_BYTES = 4096;
/** QEMU counts disks in sectors and cuts off what is left over, so a layer's size is whole sectors. */
const SECTOR_BYTES = 512;

export const L2_ENTRY_BYTES = 16;
/** Guest bytes that one L2 table (one cluster of extended entries) describes: 1 GiB. */
export const TABLE_SPAN_BYTES = (CLUSTER_BYTES / L2_ENTRY_BYTES) * CLUSTER_BYTES;

/** Clusters that one refcount block (one cluster of 16-bit counts) covers. */
export const REFCOUNTS_PER_BLOCK = CLUSTER_BYTES / 2;
/**
 * The largest disk a layer may hold. The refcount table is one cluster, which reaches 128 TiB of file; a
 * full disk of this size with its tables stays well below that, so a layer can never outgrow its table.
 */
export const LAYER_BYTES_MAX = 64 * 2 ** 40;

export interface LayerBacking {
  /**
   * The file name as written into the header: taken relative to the layer's own directory unless absolute.
   * A hint for people and `qemu-img`; Warmsite itself names backing files explicitly when it opens a chain.
   */
  readonly name: string;
  readonly format: 'qcow2' | 'raw';
}

export interface LayerShape {
  /** Size of the guest's disk: a multiple of 512, at most `LAYER_BYTES_MAX`. */
  readonly sizeBytes: number;
  /** What shows through where the layer holds nothing; null: zeroes. */
  readonly backing: LayerBacking | null;
}

/**
 * Where the fixed parts of a layer lie, in clusters: header, refcount table and L1 table stand in front with
 * their final size, since all three follow from the disk's size; data and L2 tables follow as they come, the
 * refcount blocks end the file.
 */
export const HEADER_CLUSTER = 0;
export const REFCOUNT_TABLE_CLUSTER = 1;
export const L1_CLUSTER = 2;

export function l1EntriesOf(shape: LayerShape): number {
  return Math.ceil(shape.sizeBytes / TABLE_SPAN_BYTES);
}

/** The first cluster after the fixed parts. */
export function firstFreeClusterOf(shape: LayerShape): number {
  return L1_CLUSTER + Math.ceil((l1EntriesOf(shape) * 8) / CLUSTER_BYTES);
}

/** Where the file of a layer for a disk of this size ends before anything has been written to it, at most. */
export function emptyLayerBytes(sizeBytes: number): number {
  return firstFreeClusterOf({ sizeBytes, backing: null }) * CLUSTER_BYTES;
}

/** Throws QCOW2_SHAPE_UNSUPPORTED or QCOW2_BACKING_REFUSED; sizes and names come from other machines. */
export function checkShape(shape: LayerShape): void {
  const { sizeBytes, backing } = shape;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % SECTOR_BYTES !== 0) {
    throw qcow2Failure('QCOW2_SHAPE_UNSUPPORTED', `a disk of ${sizeBytes} bytes is not whole sectors`, {
      context: { sizeBytes },
    });
  }
  if (sizeBytes > LAYER_BYTES_MAX) {
    throw qcow2Failure('QCOW2_SHAPE_UNSUPPORTED', `a disk of ${sizeBytes} bytes is larger than 64 TiB`, {
      context: { sizeBytes },
    });
  }
  const trouble = backing === null ? undefined : backingNameTrouble(backing.name);
  if (trouble !== undefined) {
    throw qcow2Failure('QCOW2_BACKING_REFUSED', `the backing name ${trouble}`, {
      context: { name: backing?.name.slice(0, 200) },
    });
  }
}
