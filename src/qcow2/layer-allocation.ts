import { assert } from '../lib/assert.ts';
import {
  CLUSTER_BYTES,
  firstFreeClusterOf,
  L2_ENTRY_BYTES,
  type LayerShape,
  SUBCLUSTER_BYTES,
  TABLE_SPAN_BYTES,
} from './layer-shape.ts';

/** One write or zero of guest bytes `[offset, offset + length)`. */
export interface LayerOperation {
  readonly kind: 'data' | 'zero';
  readonly offset: number;
  readonly length: number;
}

/** What must be written to the layer's file, and where. */
export type LayerStep =
  /** The guest bytes `[offset, offset + length)` belong at `fileOffset`, in one piece. */
  | {
      readonly kind: 'data';
      readonly fileOffset: number;
      readonly offset: number;
      readonly length: number;
    }
  /** A complete L2 table. `bytes` is reused: it is valid until the generator is asked for the next step. */
  | { readonly kind: 'table'; readonly fileOffset: number; readonly bytes: Buffer };

const NONE = -1;
/** Set in L1 and L2 entries: the cluster has exactly one reference, so QEMU may write to it in place. */
const COPIED_HIGH = 0x80000000;

/**
 * Decides where everything in a layer goes: a pure state machine from operations to steps, which knows no
 * files. The same operations give the same steps, in whatever pieces a run was interrupted.
 *
 * Clusters are handed out one after the other. Operations ascend, so a guest range of 1 GiB that was left
 * behind is never touched again, and its L2 table is emitted and forgotten at that moment: memory holds one
 * table and the place of each earlier one.
 */
export class LayerAllocation {
  readonly #sizeBytes: number;
  #nextCluster: number;
  /** End of the last operation: the next must not begin before it. */
  #position = 0;
  /** Guest cluster written last and its place, for operations that end and begin within one cluster. */
  #guestCluster = NONE;
  #fileCluster = NONE;
  readonly #table = Buffer.alloc(CLUSTER_BYTES);
  #tableIndex = NONE;
  readonly #tables = new Map<number, number>();

  constructor(shape: LayerShape) {
    this.#sizeBytes = shape.sizeBytes;
    this.#nextCluster = firstFreeClusterOf(shape);
  }

  /** Number of the first cluster that is not in use. */
  get nextCluster(): number {
    return this.#nextCluster;
  }

  /** Cluster of each L2 table by its index in the L1 table; complete after `end`. */
  get tables(): ReadonlyMap<number, number> {
    return this.#tables;
  }

  /** Why `operation` may not come next, or undefined if it may. */
  troubleWith(operation: LayerOperation): string | undefined {
    const { offset, length } = operation;
    const end = offset + length;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length <= 0) {
      return `${offset}+${length} is not a range`;
    }
    if (end > this.#sizeBytes) return `${offset}+${length} passes the end of the disk, ${this.#sizeBytes}`;
    if (offset % SUBCLUSTER_BYTES !== 0) return `${offset} is not aligned to ${SUBCLUSTER_BYTES}`;
    if (end % SUBCLUSTER_BYTES !== 0 && end !== this.#sizeBytes) {
      return `the end of ${offset}+${length} is neither aligned to ${SUBCLUSTER_BYTES} nor the end of the disk`;
    }
    if (offset < this.#position)
      return `${offset} lies before ${this.#position}, where the last operation ended`;
    return undefined;
  }

  /** The steps that carry out `operation`, in the order of the file's growth. Take all of them. */
  *apply(operation: LayerOperation): Generator<LayerStep, void, undefined> {
    const trouble = this.troubleWith(operation);
    assert(trouble === undefined, `layer operation: ${trouble}`);
    const end = operation.offset + operation.length;
    this.#position = end;
    for (let offset = operation.offset; offset < end; ) {
      const tableIndex = Math.floor(offset / TABLE_SPAN_BYTES);
      if (tableIndex !== this.#tableIndex) {
        yield* this.#leaveTable();
        this.#tableIndex = tableIndex;
      }
      // Within one table's range every new cluster lies next to the one before: one step does for all.
      const rangeEnd = Math.min(end, (tableIndex + 1) * TABLE_SPAN_BYTES);
      if (operation.kind === 'zero') {
        this.#markZero(offset, rangeEnd);
      } else {
        const fileOffset = this.#markData(offset, rangeEnd);
        yield { kind: 'data', fileOffset, offset, length: rangeEnd - offset };
      }
      offset = rangeEnd;
    }
  }

  /** The steps that are left when no more operations come. */
  *end(): Generator<LayerStep, void, undefined> {
    this.#position = this.#sizeBytes;
    yield* this.#leaveTable();
  }

  *#leaveTable(): Generator<LayerStep, void, undefined> {
    if (this.#tableIndex === NONE) return;
    const cluster = this.#nextCluster++;
    this.#tables.set(this.#tableIndex, cluster);
    yield { kind: 'table', fileOffset: cluster * CLUSTER_BYTES, bytes: this.#table };
    this.#table.fill(0);
    this.#tableIndex = NONE;
  }

  /** Gives every cluster of a range within one table its place; returns that of the range's first byte. */
  #markData(offset: number, end: number): number {
    const first = Math.floor(offset / CLUSTER_BYTES);
    let fileOffset = NONE;
    for (let cluster = first; cluster * CLUSTER_BYTES < end; cluster++) {
      if (cluster !== this.#guestCluster) {
        this.#guestCluster = cluster;
        this.#fileCluster = this.#nextCluster++;
        const entry = this.#entryOf(cluster);
        const place = this.#fileCluster * CLUSTER_BYTES;
        this.#table.writeUInt32BE(COPIED_HIGH + Math.floor(place / 2 ** 32), entry);
        this.#table.writeUInt32BE(place % 2 ** 32, entry + 4);
      }
      if (cluster === first) fileOffset = this.#fileCluster * CLUSTER_BYTES + (offset % CLUSTER_BYTES);
      // The low half of the bitmap says «allocated».
      this.#setBits(this.#entryOf(cluster) + 12, cluster, offset, end);
    }
    return fileOffset;
  }

  #markZero(offset: number, end: number): void {
    for (let cluster = Math.floor(offset / CLUSTER_BYTES); cluster * CLUSTER_BYTES < end; cluster++) {
      // The high half of the bitmap says «reads as zero»; such a sub-cluster needs no place in the file.
      this.#setBits(this.#entryOf(cluster) + 8, cluster, offset, end);
    }
  }

  #entryOf(cluster: number): number {
    return (cluster % (CLUSTER_BYTES / L2_ENTRY_BYTES)) * L2_ENTRY_BYTES;
  }

  /** Sets the bits of the sub-clusters of `cluster` that `[offset, end)` touches in the 32-bit word at `at`. */
  #setBits(at: number, cluster: number, offset: number, end: number): void {
    const start = cluster * CLUSTER_BYTES;
    const first = Math.max(0, offset - start) / SUBCLUSTER_BYTES;
    const count = Math.ceil(Math.min(CLUSTER_BYTES, end - start) / SUBCLUSTER_BYTES) - first;
    // Plain arithmetic, since shifts are signed and 1 << 32 is 1. No bit is ever set twice: ranges ascend.
    this.#table.writeUInt32BE(this.#table.readUInt32BE(at) + (2 ** count - 1) * 2 ** first, at);
  }
}
