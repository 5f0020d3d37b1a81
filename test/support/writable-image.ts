import type { ImageFile } from '../../src/hypervisor/index.ts';
import type { FileHandle, FileSystem } from '../../src/lib/files.ts';

/**
 * Images that are written in place, as QEMU does with a tip or with the base of a commit: what a fake machine and
 * fake `qemu-img commit` need. Written from QEMU's docs/interop/qcow2.txt for the one shape that our layers have;
 * shares no code with `src/qcow2`.
 *
 * Safe at every instant: new clusters are data and counted, durably, before an entry points to them, and an entry is
 * changed by one write within one sector. A kill or a power cut leaks clusters at worst.
 */
const CLUSTER = 131_072;
const SUBCLUSTER = 4096;
const PER_TABLE = CLUSTER / 16;

export interface WritableImage extends AsyncDisposable {
  /** `offset` is a multiple of 4096, and the end too or the end of the disk. */
  write(offset: number, data: Buffer): Promise<void>;
  zero(offset: number, length: number): Promise<void>;
  sync(): Promise<void>;
  readonly sizeBytes: number;
  /** Makes the disk larger, durably; what is new reads as zeros. */
  grow(sizeBytes: number): Promise<void>;
}

export async function openWritable(files: FileSystem, image: ImageFile): Promise<WritableImage> {
  const file = await files.open(image.path, 'update');
  try {
    return image.format === 'raw' ? new RawImage(file, await file.sizeBytes()) : await QcowImage.open(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

class RawImage implements WritableImage {
  readonly #file: FileHandle;
  sizeBytes: number;

  constructor(file: FileHandle, sizeBytes: number) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
  }
  async grow(sizeBytes: number): Promise<void> {
    await this.#file.truncate(sizeBytes);
    await this.#file.sync();
    this.sizeBytes = sizeBytes;
  }
  write(offset: number, data: Buffer): Promise<void> {
    return this.#file.write(data, offset);
  }
  zero(offset: number, length: number): Promise<void> {
    return this.#file.write(Buffer.alloc(length), offset);
  }
  sync(): Promise<void> {
    return this.#file.sync();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.close();
  }
}

class QcowImage implements WritableImage {
  readonly #file: FileHandle;
  sizeBytes: number;
  readonly #l1Offset: number;
  readonly #refcountsOffset: number;

  private constructor(file: FileHandle, sizeBytes: number, l1Offset: number, refcountsOffset: number) {
    this.#file = file;
    this.sizeBytes = sizeBytes;
    this.#l1Offset = l1Offset;
    this.#refcountsOffset = refcountsOffset;
  }

  static async open(file: FileHandle): Promise<QcowImage> {
    const header = await bytesAt(file, 0, 104);
    if (header.toString('latin1', 0, 4) !== 'QFI\xfb') throw new Error('no qcow2 header');
    const table = await bytesAt(file, Number(header.readBigUInt64BE(48)), 8);
    return new QcowImage(
      file,
      Number(header.readBigUInt64BE(24)),
      Number(header.readBigUInt64BE(40)),
      Number(table.readBigUInt64BE(0)),
    );
  }

  async write(offset: number, data: Buffer): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const at = offset + done;
      const length = Math.min(CLUSTER - (at % CLUSTER), data.length - done);
      await this.#writeWithin(at, data.subarray(done, done + length));
      done += length;
    }
  }

  async #writeWithin(offset: number, data: Buffer): Promise<void> {
    const entryAt = await this.#entryFor(offset);
    const entry = await bytesAt(this.#file, entryAt, 16);
    let place = placeOf(entry);
    if (place === 0) {
      place = await this.#newCluster();
      entry.writeUInt32BE(0x80000000 + Math.floor(place / 2 ** 32), 0);
      entry.writeUInt32BE(place % 2 ** 32, 4);
    }
    await this.#file.write(data, place + (offset % CLUSTER));
    const bits = bitsOf(offset, data.length);
    entry.writeUInt32BE((entry.readUInt32BE(8) & ~bits) >>> 0, 8);
    entry.writeUInt32BE((entry.readUInt32BE(12) | bits) >>> 0, 12);
    await this.#file.sync();
    await this.#file.write(entry, entryAt);
  }

  async zero(offset: number, length: number): Promise<void> {
    for (let at = offset; at < offset + length; ) {
      const part = Math.min(CLUSTER - (at % CLUSTER), offset + length - at);
      const entryAt = await this.#entryFor(at);
      const entry = await bytesAt(this.#file, entryAt, 16);
      const bits = bitsOf(at, part);
      entry.writeUInt32BE((entry.readUInt32BE(8) | bits) >>> 0, 8);
      entry.writeUInt32BE((entry.readUInt32BE(12) & ~bits) >>> 0, 12);
      await this.#file.write(entry, entryAt);
      at += part;
    }
  }

  /** Within what the present L1 table reaches, which is a GiB for each entry. */
  async grow(sizeBytes: number): Promise<void> {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(BigInt(sizeBytes));
    await this.#file.write(bytes, 24);
    await this.#file.sync();
    this.sizeBytes = sizeBytes;
  }

  /** Where the L2 entry of a guest offset lies; makes its table if there is none. */
  async #entryFor(offset: number): Promise<number> {
    const index = Math.floor(offset / CLUSTER);
    if (offset >= this.sizeBytes) throw new RangeError(`${offset} lies behind the end of the disk`);
    const l1At = this.#l1Offset + Math.floor(index / PER_TABLE) * 8;
    let table = placeOf(await bytesAt(this.#file, l1At, 8));
    if (table === 0) {
      table = await this.#newCluster();
      await this.#file.write(Buffer.alloc(CLUSTER), table);
      await this.#file.sync();
      const reference = Buffer.alloc(8);
      reference.writeUInt32BE(0x80000000 + Math.floor(table / 2 ** 32), 0);
      reference.writeUInt32BE(table % 2 ** 32, 4);
      await this.#file.write(reference, l1At);
      await this.#file.sync();
    }
    return table + (index % PER_TABLE) * 16;
  }

  async #newCluster(): Promise<number> {
    const cluster = Math.ceil((await this.#file.sizeBytes()) / CLUSTER);
    await this.#file.truncate((cluster + 1) * CLUSTER);
    await this.#file.write(Buffer.from([0, 1]), this.#refcountsOffset + cluster * 2);
    await this.#file.sync();
    return cluster * CLUSTER;
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.close();
  }
}

/** Puts another backing name into a qcow2 header, as `qemu-img rebase -u` does. Durable on return. */
export async function writeBackingName(files: FileSystem, path: string, backing: ImageFile): Promise<void> {
  const file = await files.open(path, 'update');
  try {
    const header = await bytesAt(file, 0, 4096);
    const nameOffset = 104 + 24;
    header.fill(0, 104);
    header.writeUInt32BE(0xe2792aca, 104);
    header.writeUInt32BE(backing.format.length, 108);
    header.write(backing.format, 112, 'ascii');
    header.writeBigUInt64BE(BigInt(nameOffset), 8);
    header.writeUInt32BE(header.write(backing.path, nameOffset, 'utf8'), 16);
    await file.write(header.subarray(0, 512), 0);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** The bits of the 4 KiB parts of one cluster that `[offset, offset + length)` covers. */
function bitsOf(offset: number, length: number): number {
  const first = (offset % CLUSTER) / SUBCLUSTER;
  const end = Math.ceil(((offset % CLUSTER) + length) / SUBCLUSTER);
  let bits = 0;
  for (let bit = first; bit < end; bit++) bits |= 1 << bit;
  return bits;
}

function placeOf(entry: Buffer): number {
  return (entry.readUInt32BE(0) & 0x00ffffff) * 2 ** 32 + entry.readUInt32BE(4);
}

async function bytesAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await file.read(bytes, position);
  return bytes;
}
