import { dirname, join } from 'node:path';
import type { FileHandle, FileSystem } from '../../src/lib/files.ts';

/**
 * A second opinion on layers: a reader written from QEMU's docs/interop/qcow2.txt that shares no code with
 * `src/qcow2`, works on any `FileSystem`, and so stands in for QEMU in the simulation.
 *
 * It reads what our writer makes and QEMU keeps (version 3, extended L2 entries, clusters of 128 KiB, 16-bit
 * refcounts, no snapshots, no compression) and refuses everything else. Opening a layer checks all of its
 * metadata: each cluster is referenced once and counted once, nothing leaks, no reserved bit is set, no
 * sub-cluster is both data and zero, everything lies within the file.
 */
export class Qcow2Damage extends Error {
  override readonly name = 'Qcow2Damage';
}

export interface MappedExtent {
  readonly offset: number;
  readonly length: number;
  readonly kind: 'data' | 'zero';
}

/** The path of a backing file, from its name and the path of the image that names it. */
export type ResolveBacking = (name: string, imagePath: string) => string;

export const besideImage: ResolveBacking = (name, imagePath) => join(dirname(imagePath), name);

const CLUSTER = 131_072;
const SUBCLUSTER = 4096;
const PER_TABLE = CLUSTER / 16;
const PER_REFCOUNT_BLOCK = CLUSTER / 2;
const CHAIN_MAX = 500;
const NO_REFERENCES = Buffer.alloc(CLUSTER);

/** A run of sub-clusters of one kind; `place` is that of its first byte in the file (data only). */
interface Run {
  readonly offset: number;
  length: number;
  readonly kind: 'data' | 'zero';
  readonly place: number;
}

/** One layer by itself. */
export class LayerReader implements AsyncDisposable {
  readonly path: string;
  readonly sizeBytes: number;
  readonly backing: { readonly name: string; readonly format: string } | null;
  readonly #file: FileHandle;
  readonly #runs: readonly Run[];

  constructor(path: string, file: FileHandle, header: Header, runs: readonly Run[]) {
    this.path = path;
    this.sizeBytes = header.sizeBytes;
    this.backing = header.backing;
    this.#file = file;
    this.#runs = runs;
  }

  /** What the layer itself holds, ascending; extents of one kind that touch are one. */
  map(): MappedExtent[] {
    const extents: { offset: number; length: number; kind: 'data' | 'zero' }[] = [];
    for (const { offset, length, kind } of this.#runs) {
      const last = extents.at(-1);
      if (last && last.kind === kind && last.offset + last.length === offset) last.length += length;
      else extents.push({ offset, length, kind });
    }
    return extents;
  }

  /** Puts what the layer holds of `[offset, offset + target.length)` into `target`, leaves the rest alone. */
  async readOwn(target: Buffer, offset: number): Promise<void> {
    const end = offset + target.length;
    for (const run of this.#runs) {
      const from = Math.max(offset, run.offset);
      const to = Math.min(end, run.offset + run.length);
      if (from >= to) continue;
      const part = target.subarray(from - offset, to - offset);
      if (run.kind === 'zero') part.fill(0);
      else await readFully(this.#file, part, run.place + (from - run.offset), this.path);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

/** A raw file at the bottom of a chain. */
interface RawBase {
  readonly path: string;
  readonly file: FileHandle;
  readonly sizeBytes: number;
}

/** A layer with all that shows through it. */
export class ChainReader implements AsyncDisposable {
  /** From the top down. */
  readonly layers: readonly LayerReader[];
  readonly #base: RawBase | null;

  constructor(layers: readonly LayerReader[], base: RawBase | null) {
    this.layers = layers;
    this.#base = base;
  }

  get sizeBytes(): number {
    return this.layers[0]?.sizeBytes ?? this.#base!.sizeBytes;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    if (offset < 0 || length < 0 || offset + length > this.sizeBytes) {
      throw new RangeError(`${offset}+${length} passes the end of the disk, ${this.sizeBytes}`);
    }
    const target = Buffer.alloc(length);
    // A shorter layer hides what lies beyond its end in those below it: see through only as far as that.
    let visible = offset + length;
    const order: { read: (part: Buffer) => Promise<void>; end: number }[] = [];
    for (const layer of this.layers) {
      visible = Math.min(visible, layer.sizeBytes);
      order.push({ read: (part) => layer.readOwn(part, offset), end: visible });
    }
    const base = this.#base;
    if (base) {
      visible = Math.min(visible, base.sizeBytes);
      order.push({ read: (part) => readFully(base.file, part, offset, base.path), end: visible });
    }
    for (const { read, end } of order.reverse()) {
      if (end > offset) await read(target.subarray(0, end - offset));
    }
    return target;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const layer of this.layers) await layer[Symbol.asyncDispose]();
    await this.#base?.file.close();
  }
}

export async function openChain(
  files: FileSystem,
  path: string,
  resolve: ResolveBacking = besideImage,
  o: Parameters<typeof openLayer>[2] = { leaks: 'refused' },
): Promise<ChainReader> {
  const layers: LayerReader[] = [];
  const seen = new Set<string>();
  try {
    for (let next = path; ; ) {
      if (seen.has(next)) throw new Qcow2Damage(`${path}: the chain comes back to ${next}`);
      if (seen.size >= CHAIN_MAX) throw new Qcow2Damage(`${path}: more than ${CHAIN_MAX} layers`);
      seen.add(next);
      const layer = await openLayer(files, next, o);
      layers.push(layer);
      if (layer.backing === null) return new ChainReader(layers, null);
      const below = resolve(layer.backing.name, next);
      if (layer.backing.format === 'raw') {
        const file = await files.open(below, 'read');
        return new ChainReader(layers, { path: below, file, sizeBytes: await file.sizeBytes() });
      }
      next = below;
    }
  } catch (error) {
    for (const layer of layers) await layer[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * `leaks: 'allowed'` is for layers that QEMU has written to when the power went: clusters may be counted that nobody
 * uses. Anything else that is wrong with the counts stays damage.
 */
export async function openLayer(
  files: FileSystem,
  path: string,
  o: { leaks: 'refused' | 'allowed' } = { leaks: 'refused' },
): Promise<LayerReader> {
  const file = await files.open(path, 'read');
  try {
    const fileBytes = await file.sizeBytes();
    const header = await readHeader(file, path, fileBytes);
    const references = new References(path, fileBytes);
    references.add(0, CLUSTER, 'the header');
    const runs = await readMapping(file, path, header, references);
    await references.compareWithRefcounts(file, header, o.leaks === 'allowed');
    return new LayerReader(path, file, header, runs);
  } catch (error) {
    await file.close();
    throw error;
  }
}

interface Header {
  readonly sizeBytes: number;
  readonly backing: { readonly name: string; readonly format: string } | null;
  readonly l1Offset: number;
  readonly l1Entries: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
}

async function readHeader(file: FileHandle, path: string, fileBytes: number): Promise<Header> {
  const bytes = Buffer.alloc(Math.min(CLUSTER, fileBytes));
  await readFully(file, bytes, 0, path);
  const must = (condition: boolean, what: string): void => {
    if (!condition) throw new Qcow2Damage(`${path}: ${what}`);
  };
  must(bytes.length >= 112 && bytes.toString('latin1', 0, 4) === 'QFI\xfb', 'no qcow2 header');
  must(bytes.readUInt32BE(4) === 3, 'not version 3');
  must(bytes.readUInt32BE(20) === 17, 'clusters are not 128 KiB');
  must(bytes.readUInt32BE(32) === 0, 'encrypted');
  must(bytes.readUInt32BE(60) === 0, 'has snapshots');
  must(bytes.readBigUInt64BE(72) === 16n, 'incompatible features other than extended L2 entries');
  must((bytes.readBigUInt64BE(80) & 1n) === 0n, 'lazy refcounts');
  must((bytes.readBigUInt64BE(88) & 3n) === 0n, 'bitmaps or raw external data');
  must(bytes.readUInt32BE(96) === 4, 'refcounts are not 16 bits');
  const headerLength = bytes.readUInt32BE(100);
  must(headerLength === 104 || headerLength === 112, 'header length');

  let format: string | null = null;
  for (let at = headerLength; ; ) {
    must(at + 8 <= bytes.length, 'extensions without end');
    const type = bytes.readUInt32BE(at);
    const length = bytes.readUInt32BE(at + 4);
    if (type === 0) break;
    must(at + 8 + length <= bytes.length, 'extension too long');
    if (type === 0xe2792aca) format = bytes.toString('latin1', at + 8, at + 8 + length);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  const nameOffset = Number(bytes.readBigUInt64BE(8));
  const nameBytes = bytes.readUInt32BE(16);
  must(nameOffset === 0 || (nameBytes > 0 && nameOffset + nameBytes <= bytes.length), 'backing name');
  must(nameOffset === 0 || format === 'qcow2' || format === 'raw', 'backing format must be told');

  const header = {
    sizeBytes: Number(bytes.readBigUInt64BE(24)),
    backing:
      nameOffset === 0
        ? null
        : { name: bytes.toString('utf8', nameOffset, nameOffset + nameBytes), format: format! },
    l1Offset: Number(bytes.readBigUInt64BE(40)),
    l1Entries: bytes.readUInt32BE(36),
    refcountTableOffset: Number(bytes.readBigUInt64BE(48)),
    refcountTableClusters: bytes.readUInt32BE(56),
  };
  must(header.sizeBytes % 512 === 0 && header.sizeBytes <= 2 ** 50, 'disk size');
  must(header.l1Entries >= Math.ceil(header.sizeBytes / (PER_TABLE * CLUSTER)), 'L1 table too short');
  must(header.l1Entries <= 2 ** 20 && header.refcountTableClusters <= 64, 'tables too large');
  return header;
}

async function readMapping(
  file: FileHandle,
  path: string,
  header: Header,
  references: References,
): Promise<Run[]> {
  const runs: Run[] = [];
  const l1Bytes = header.l1Entries * 8;
  references.add(header.l1Offset, Math.ceil(l1Bytes / CLUSTER) * CLUSTER, 'the L1 table');
  const l1 = await readAt(file, header.l1Offset, l1Bytes, path);
  using scratch = borrowCluster();
  const l2 = scratch.bytes;
  for (let i = 0; i < header.l1Entries; i++) {
    const tableOffset = placeIn(l1, i * 8, path, `L1 entry ${i}`);
    if (tableOffset === 0) continue;
    references.add(tableOffset, CLUSTER, `L2 table ${i}`);
    await readFully(file, l2, tableOffset, path);
    for (let j = 0; j < PER_TABLE; j++) {
      if (l2.readUInt32BE(j * 16) + l2.readUInt32BE(j * 16 + 4) === 0 && l2.readUInt32BE(j * 16 + 8) === 0) {
        // Most entries of most tables: nothing here, unless something is «allocated» without a place.
        if (l2.readUInt32BE(j * 16 + 12) === 0) continue;
      }
      const guest = (i * PER_TABLE + j) * CLUSTER;
      const what = `L2 entry of ${guest}`;
      const place = placeIn(l2, j * 16, path, what);
      const zero = l2.readUInt32BE(j * 16 + 8);
      const allocated = l2.readUInt32BE(j * 16 + 12);
      if ((zero & allocated) !== 0) throw new Qcow2Damage(`${path}: ${what} is both data and zero`);
      if (allocated !== 0 && place === 0) throw new Qcow2Damage(`${path}: ${what} is data without a place`);
      if (place !== 0) references.add(place, CLUSTER, what);
      if (zero === 0 && allocated === 0) continue;
      addRuns(runs, { guest, place, zero, allocated, sizeBytes: header.sizeBytes, path });
    }
  }
  return runs;
}

function addRuns(
  runs: Run[],
  o: { guest: number; place: number; zero: number; allocated: number; sizeBytes: number; path: string },
): void {
  for (let k = 0; k < 32; k++) {
    const isData = ((o.allocated >>> k) & 1) === 1;
    const isZero = ((o.zero >>> k) & 1) === 1;
    if (!isData && !isZero) continue;
    const offset = o.guest + k * SUBCLUSTER;
    const kind = isData ? 'data' : 'zero';
    const place = isData ? o.place + k * SUBCLUSTER : 0;
    const length = Math.min(SUBCLUSTER, o.sizeBytes - offset);
    // A writer may mark the whole last cluster; what it says about bytes behind the disk's end is void.
    if (length <= 0) continue;
    const last = runs.at(-1);
    if (
      last &&
      last.kind === kind &&
      last.offset + last.length === offset &&
      (kind === 'zero' || last.place + last.length === place)
    ) {
      last.length += length;
    } else {
      runs.push({ offset, length, kind, place });
    }
  }
}

/** The offset in an L1 or L2 entry; 0 for none. */
function placeIn(table: Buffer, at: number, path: string, what: string): number {
  const high = table.readUInt32BE(at);
  const low = table.readUInt32BE(at + 4);
  if (high === 0 && low === 0) return 0;
  const place = (high & 0x00ffffff) * 2 ** 32 + low;
  // Bit 63 (one reference) must be set, since there are no snapshots; bit 62 would mean compressed.
  if (high >>> 24 !== 0x80 || place === 0 || place % CLUSTER !== 0) {
    throw new Qcow2Damage(`${path}: ${what} has impossible bits`);
  }
  return place;
}

/** Who uses each cluster of the file. */
class References {
  readonly #path: string;
  readonly #fileClusters: number;
  readonly #users = new Map<number, string>();

  constructor(path: string, fileBytes: number) {
    this.#path = path;
    this.#fileClusters = Math.ceil(fileBytes / CLUSTER);
  }

  add(offset: number, length: number, user: string): void {
    if (offset % CLUSTER !== 0) throw new Qcow2Damage(`${this.#path}: ${user} is not at a cluster`);
    for (let cluster = offset / CLUSTER; cluster < (offset + length) / CLUSTER; cluster++) {
      const other = this.#users.get(cluster);
      if (other !== undefined) {
        throw new Qcow2Damage(`${this.#path}: cluster ${cluster} belongs to ${user} and to ${other}`);
      }
      if (cluster >= this.#fileClusters) {
        throw new Qcow2Damage(`${this.#path}: ${user} lies behind the end of the file`);
      }
      this.#users.set(cluster, user);
    }
  }

  async compareWithRefcounts(file: FileHandle, header: Header, leaksAllowed: boolean): Promise<void> {
    const tableBytes = header.refcountTableClusters * CLUSTER;
    this.add(header.refcountTableOffset, tableBytes, 'the refcount table');
    using part = borrowCluster();
    const blocks = new Map<number, number>();
    for (let at = 0; at < tableBytes; at += CLUSTER) {
      await readFully(file, part.bytes, header.refcountTableOffset + at, this.#path);
      for (let entry = 0; entry < CLUSTER; entry += 8) {
        const offset = part.bytes.readUInt32BE(entry) * 2 ** 32 + part.bytes.readUInt32BE(entry + 4);
        if (offset === 0) continue;
        const i = (at + entry) / 8;
        this.add(offset, CLUSTER, `refcount block ${i}`);
        blocks.set(i, offset);
      }
    }
    let counted = 0;
    for (const [i, offset] of blocks) {
      // The last block of a file may end in a hole that the file does not reach.
      using scratch = borrowCluster();
      const block = scratch.bytes;
      block.fill(0, await file.read(block, offset));
      const first = i * PER_REFCOUNT_BLOCK;
      const within = Math.max(0, Math.min(PER_REFCOUNT_BLOCK, this.#fileClusters - first));
      for (let j = 0; j < within; j++) {
        const count = block.readUInt16BE(j * 2);
        const cluster = first + j;
        const expected = this.#users.has(cluster) ? 1 : 0;
        if (count === 1 && expected === 0 && leaksAllowed) continue;
        if (count !== expected) {
          throw new Qcow2Damage(`${this.#path}: cluster ${cluster} has ${count} references, not ${expected}`);
        }
        counted += count;
      }
      // Counted first and grown afterwards: a power cut in between leaves clusters that nobody uses, and that are not there.
      const behind = block.subarray(within * 2);
      if (!behind.equals(NO_REFERENCES.subarray(within * 2)) && !(leaksAllowed && isOnceAtMost(behind)))
        throw new Qcow2Damage(`${this.#path}: clusters behind the end of the file have references`);
    }
    if (counted !== this.#users.size) throw new Qcow2Damage(`${this.#path}: clusters without refcount block`);
  }
}

function isOnceAtMost(counts: Buffer): boolean {
  for (let at = 0; at < counts.length; at += 2) if (counts.readUInt16BE(at) > 1) return false;
  return true;
}

/** Buffers of one cluster to be used again: images are opened by the thousand, and new ones keep the garbage collector busy. */
const FREE_CLUSTERS: Buffer[] = [];

function borrowCluster(): Disposable & { readonly bytes: Buffer } {
  const bytes = FREE_CLUSTERS.pop() ?? Buffer.alloc(CLUSTER);
  return { bytes, [Symbol.dispose]: () => void FREE_CLUSTERS.push(bytes) };
}

async function readAt(file: FileHandle, offset: number, length: number, path: string): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await readFully(file, bytes, offset, path);
  return bytes;
}

async function readFully(file: FileHandle, target: Buffer, offset: number, path: string): Promise<void> {
  const got = await file.read(target, offset);
  if (got !== target.length) {
    throw new Qcow2Damage(`${path}: ends within ${target.length} bytes at ${offset}`);
  }
}
