/** A disk of the simulated guest and where it began. */
export interface GuestDisk {
  readonly diskId: string;
  readonly sizeBytes: number;
}

const SECTOR = 512;

/** What every disk must read as: the guest's own memory of what it wrote. */
export type DiskImage = ReadonlyMap<string, Buffer>;

/** The guest's disks as the guest knows them, with what a power cut may make of writes that were not flushed. */
export class GuestMemory {
  readonly #content = new Map<string, Buffer>();
  /** By disk and sector: what was there at the last flush and everything written since. */
  readonly #unflushed = new Map<string, Map<number, Buffer[]>>();
  #fillings = 0;

  constructor(disks: readonly GuestDisk[]) {
    this.learn(disks);
  }

  get diskIds(): string[] {
    return [...this.#content.keys()];
  }

  /** Its owner has put disks in; they are empty. Those that it knows stay as they are. */
  learn(disks: readonly GuestDisk[]): void {
    for (const { diskId, sizeBytes } of disks) {
      if (this.#content.has(diskId)) continue;
      this.#content.set(diskId, Buffer.alloc(sizeBytes));
      this.#unflushed.set(diskId, new Map());
    }
  }

  content(diskId: string): Buffer {
    return this.#content.get(diskId)!;
  }

  snapshot(): DiskImage {
    return new Map([...this.#content].map(([diskId, bytes]) => [diskId, Buffer.from(bytes)]));
  }

  /** Data that no sector has held before. */
  freshData(length: number): Buffer {
    const data = Buffer.alloc(length);
    const words = new Uint32Array(data.buffer, data.byteOffset, length / 4);
    for (let at = 0; at < words.length; at += SECTOR / 4) {
      words.fill(++this.#fillings, at, at + SECTOR / 4);
    }
    return data;
  }

  write(diskId: string, offset: number, data: Buffer): void {
    const content = this.content(diskId);
    const unflushed = this.#unflushed.get(diskId)!;
    for (let at = 0; at < data.length; at += SECTOR) {
      const sector = (offset + at) / SECTOR;
      const versions = unflushed.get(sector) ?? [
        Buffer.from(content.subarray(offset + at, offset + at + SECTOR)),
      ];
      versions.push(Buffer.from(data.subarray(at, at + SECTOR)));
      unflushed.set(sector, versions);
    }
    data.copy(content, offset);
  }

  /** The owner makes the disk larger. */
  grow(diskId: string, sizeBytes: number): void {
    const content = this.content(diskId);
    this.#content.set(diskId, Buffer.concat([content, Buffer.alloc(sizeBytes - content.length)]));
  }

  flush(diskIds: readonly string[] = this.diskIds): void {
    for (const diskId of diskIds) this.#unflushed.get(diskId)!.clear();
  }

  /** What is wrong with a disk after a power cut, if it is neither what was flushed nor anything written since. */
  misfit(diskId: string, found: Buffer, mayBeShort: boolean): string | undefined {
    const content = this.content(diskId);
    const isShort = mayBeShort && found.length < content.length;
    if (found.length !== content.length && !isShort) return `${diskId} has ${found.length} bytes`;
    for (let at = 0; at < found.length; at += SECTOR) {
      const now = found.subarray(at, at + SECTOR);
      if (now.equals(content.subarray(at, at + SECTOR))) continue;
      const versions = this.#unflushed.get(diskId)!.get(at / SECTOR) ?? [];
      if (!versions.some((version) => version.equals(now))) {
        return `sector ${at / SECTOR} of ${diskId} is neither what the guest flushed nor what it wrote later`;
      }
    }
    return undefined;
  }

  /** After a power cut: what the disk holds now is what the guest goes on with. */
  adopt(diskId: string, found: Buffer): void {
    found.copy(this.content(diskId));
    this.#unflushed.get(diskId)!.clear();
  }
}
