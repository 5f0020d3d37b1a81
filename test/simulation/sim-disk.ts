import { dirname } from 'node:path';
import type { SimRandom } from './sim-random.ts';

/**
 * A disk with a page cache in front of it, for all that a site stores. What it does to those who rely on more than
 * `FileSystem` promises, and why the product must survive it:
 *
 * - A power cut keeps, loses or tears every page that was not synced, each by itself, at sectors of 512 bytes:
 *   drives and schedulers reorder. Dirty pages may also become durable at any moment without a sync.
 * - A file's new size and its new pages survive or not independently; in a *metadata-first* cut all sizes and names
 *   survive and no page does, as on a journaling file system that does not order data.
 * - A new name, a removal or a rename that no `syncDirectory` has followed survives or not: in order (a journal) or
 *   each by itself (what the contract allows). A rename is never half done.
 * - A failed sync drops the pages from the set of dirty ones: a second sync succeeds and nothing was stored, and a
 *   later eviction brings the old content back (Linux, «fsyncgate» 2018).
 * - Every kind of call can fail once or until it is healed (EIO); a failed write may have stored its first half;
 *   space can end at any write (ENOSPC). Those are in faults.ts.
 *
 * What it does not do: change durable bytes by itself (bit rot), or break renames, which no file system may.
 */
const PAGE = 4096;
const SECTOR = 512;

/** How one power cut treats what was not synced. */
export interface CutMode {
  /** `ordered`: names survive up to some moment; `any`: each change of a name by itself. */
  readonly names: 'ordered' | 'any';
  /** Probability that a dirty page survives. */
  readonly pagesKept: number;
  /** Sizes and names survive whole, pages not at all. */
  readonly metadataFirst: boolean;
}

export function chooseCutMode(random: SimRandom): CutMode {
  return {
    names: random.pick(['ordered', 'any']),
    pagesKept: random.pick([0, 0.5, 0.9, 1]),
    metadataFirst: random.chance(0.15),
  };
}

let versions = 0;

/** One file: what reads see, and what a power cut would leave for certain. */
export class SimFile {
  /** Changes with every change of content; no two contents of any file share one. */
  version = ++versions;
  sizeBytes = 0;
  readOnly = false;
  #pages = new Map<number, Buffer>();
  #durablePages = new Map<number, Buffer>();
  #durableBytes = 0;
  #durableReadOnly = false;
  #dirty = new Set<number>();
  /** Pages whose sync failed: clean for the system, and not stored. */
  #dropped = new Set<number>();

  read(target: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(target.length, this.sizeBytes - position));
    for (let done = 0; done < length; ) {
      const within = (position + done) % PAGE;
      const count = Math.min(PAGE - within, length - done);
      const page = this.#pages.get((position + done - within) / PAGE);
      if (page) page.copy(target, done, within, within + count);
      else target.fill(0, done, done + count);
      done += count;
    }
    return length;
  }

  write(data: Uint8Array, position: number): void {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    for (let done = 0; done < data.length; ) {
      const within = (position + done) % PAGE;
      const count = Math.min(PAGE - within, data.length - done);
      const page = this.#ownPage((position + done - within) / PAGE);
      bytes.copy(page, within, done, done + count);
      done += count;
    }
    this.sizeBytes = Math.max(this.sizeBytes, position + data.length);
    this.version = ++versions;
  }

  truncate(sizeBytes: number): void {
    for (const index of [...this.#pages.keys()]) {
      if (index * PAGE < sizeBytes) continue;
      this.#pages.delete(index);
      this.#touch(index);
    }
    const last = Math.floor(sizeBytes / PAGE);
    if (this.#pages.has(last)) this.#ownPage(last).fill(0, sizeBytes % PAGE);
    this.sizeBytes = sizeBytes;
    this.version = ++versions;
  }

  /** Pages are never changed in place, so that durable state and copies may share them. */
  #ownPage(index: number): Buffer {
    const page = Buffer.alloc(PAGE);
    this.#pages.get(index)?.copy(page);
    this.#pages.set(index, page);
    this.#touch(index);
    return page;
  }

  #touch(index: number): void {
    this.#dirty.add(index);
    this.#dropped.delete(index);
  }

  get isDirty(): boolean {
    return this.#dirty.size > 0 || this.sizeBytes !== this.#durableBytes;
  }

  sync(): void {
    for (const index of this.#dirty) this.#writeBack(index);
    this.#dirty.clear();
    this.#durableBytes = this.sizeBytes;
    this.#durableReadOnly = this.readOnly;
  }

  /** What the system does on its own: some dirty page reaches the disk. */
  writeBackOne(random: SimRandom): void {
    if (this.#dirty.size === 0) return;
    const index = random.pick([...this.#dirty]);
    this.#writeBack(index);
    this.#dirty.delete(index);
  }

  #writeBack(index: number): void {
    const page = this.#pages.get(index);
    if (page) this.#durablePages.set(index, page);
    else this.#durablePages.delete(index);
  }

  /** A sync that failed: nothing more is stored, and nothing is dirty any longer. */
  failSync(): void {
    for (const index of this.#dirty) this.#dropped.add(index);
    this.#dirty.clear();
  }

  /** Memory is short: pages that count as clean are read from the disk again. */
  evict(): void {
    if (this.#dropped.size === 0) return;
    for (const index of this.#dropped) {
      const page = this.#durablePages.get(index);
      if (page) this.#pages.set(index, page);
      else this.#pages.delete(index);
    }
    this.#dropped.clear();
    this.version = ++versions;
  }

  crash(random: SimRandom, mode: CutMode): void {
    const pages = new Map(this.#durablePages);
    for (const index of this.#dirty) {
      const survivor = this.#survivor(index, random, mode);
      if (survivor) pages.set(index, survivor);
      else pages.delete(index);
    }
    let sizeBytes = this.#durableBytes;
    if (this.sizeBytes !== sizeBytes && (mode.metadataFirst || random.chance(0.5))) {
      sizeBytes = this.sizeBytes;
      const grown = sizeBytes - this.#durableBytes;
      if (!mode.metadataFirst && grown > 0 && random.chance(0.3)) sizeBytes -= random.below(grown);
    }
    this.#pages = pages;
    this.truncate(sizeBytes);
    this.readOnly = random.chance(0.5) ? this.readOnly : this.#durableReadOnly;
    this.#dropped.clear();
    this.sync();
  }

  #survivor(index: number, random: SimRandom, mode: CutMode): Buffer | undefined {
    const old = this.#durablePages.get(index);
    if (mode.metadataFirst || !random.chance(mode.pagesKept)) {
      if (mode.metadataFirst || !random.chance(0.2)) return old;
      const torn = Buffer.alloc(PAGE);
      old?.copy(torn);
      const page = this.#pages.get(index);
      for (let at = 0; at < PAGE; at += SECTOR) {
        if (!random.chance(0.5)) continue;
        if (page) page.copy(torn, at, at, at + SECTOR);
        else torn.fill(0, at, at + SECTOR);
      }
      return torn;
    }
    return this.#pages.get(index);
  }

  copy(): SimFile {
    const copy = new SimFile();
    copy.version = this.version;
    copy.sizeBytes = this.sizeBytes;
    copy.readOnly = this.readOnly;
    copy.#pages = new Map(this.#pages);
    copy.#durablePages = new Map(this.#durablePages);
    copy.#durableBytes = this.#durableBytes;
    copy.#durableReadOnly = this.#durableReadOnly;
    copy.#dirty = new Set(this.#dirty);
    copy.#dropped = new Set(this.#dropped);
    return copy;
  }
}

/** All names of a disk; a directory is its path. */
interface Names {
  readonly files: Map<string, SimFile>;
  readonly directories: Set<string>;
}

/** A change of names and the directories whose sync makes it durable. */
interface NameChange {
  readonly directories: readonly string[];
  readonly apply: (names: Names) => void;
}

export class SimDisk {
  #names: Names = { files: new Map(), directories: new Set(['/']) };
  #durable: Names = { files: new Map(), directories: new Set(['/']) };
  #pending: NameChange[] = [];
  /** Counts changes of names. */
  changes = 0;

  file(path: string): SimFile | undefined {
    return this.#names.files.get(path);
  }

  isDirectory(path: string): boolean {
    return this.#names.directories.has(path);
  }

  get files(): ReadonlyMap<string, SimFile> {
    return this.#names.files;
  }

  /** The names in a directory, sorted. */
  list(path: string): string[] {
    const prefix = path === '/' ? '/' : `${path}/`;
    const inside: string[] = [];
    for (const names of [this.#names.files.keys(), this.#names.directories]) {
      for (const name of names) {
        const isInside = name.startsWith(prefix) && name.length > prefix.length;
        if (isInside && !name.includes('/', prefix.length)) inside.push(name.slice(prefix.length));
      }
    }
    return inside.sort();
  }

  create(path: string): SimFile {
    const file = new SimFile();
    this.#change([dirname(path)], ({ files }) => files.set(path, file));
    return file;
  }

  rename(from: string, to: string): void {
    const file = this.#names.files.get(from)!;
    this.#change([dirname(from), dirname(to)], ({ files }) => {
      files.delete(from);
      files.set(to, file);
    });
  }

  remove(path: string): void {
    this.#change([dirname(path)], ({ files }) => files.delete(path));
  }

  makeDirectory(path: string): void {
    this.#change([dirname(path)], ({ directories }) => directories.add(path));
  }

  /** Of an empty directory. */
  removeDirectory(path: string): void {
    this.#change([dirname(path)], ({ directories }) => directories.delete(path));
  }

  #change(directories: readonly string[], apply: (names: Names) => void): void {
    apply(this.#names);
    this.#pending.push({ directories, apply });
    this.changes++;
  }

  syncDirectory(path: string): void {
    const settled = this.#pending.filter(({ directories }) => directories.includes(path));
    for (const { apply } of settled) apply(this.#durable);
    this.#pending = this.#pending.filter((change) => !settled.includes(change));
  }

  /** The power goes. What is left is all there is, and it is durable. */
  crash(random: SimRandom, mode: CutMode): void {
    const share = random.pick([0, 0.5, 1]);
    const prefix = random.below(this.#pending.length + 1);
    this.#pending.forEach(({ apply }, index) => {
      const isKept = mode.metadataFirst || (mode.names === 'ordered' ? index < prefix : random.chance(share));
      if (isKept) apply(this.#durable);
    });
    this.#pending = [];
    const { files, directories } = this.#durable;
    const isReachable = (path: string): boolean =>
      path === '/' || (directories.has(path) && isReachable(dirname(path)));
    for (const path of [...directories]) if (!isReachable(path)) directories.delete(path);
    for (const path of [...files.keys()]) if (!isReachable(dirname(path))) files.delete(path);
    for (const file of new Set(files.values())) file.crash(random, mode);
    this.#names = { files: new Map(files), directories: new Set(directories) };
    this.changes++;
  }

  /** What the system does now and then: writes a dirty page back, drops clean ones from memory. */
  background(random: SimRandom): void {
    const files = [...this.#names.files.values()];
    if (files.length === 0) return;
    const file = random.pick(files);
    if (random.chance(0.8)) file.writeBackOne(random);
    else file.evict();
  }

  /** Another disk in the same state, cache and all. */
  copy(): SimDisk {
    const copies = new Map<SimFile, SimFile>();
    const copyOf = (file: SimFile): SimFile => {
      const copy = copies.get(file) ?? file.copy();
      copies.set(file, copy);
      return copy;
    };
    const namesOf = ({ files, directories }: Names): Names => ({
      files: new Map([...files].map(([path, file]) => [path, copyOf(file)])),
      directories: new Set(directories),
    });
    const copy = new SimDisk();
    copy.#names = namesOf(this.#names);
    copy.#durable = namesOf(this.#durable);
    // A pending change holds on to the file that it names; the copy must name its own one.
    copy.#pending = this.#pending.map(({ directories, apply }) => ({
      directories,
      apply: (names) => {
        const before = new Map(names.files);
        apply(names);
        for (const [path, file] of names.files) {
          if (before.get(path) !== file) names.files.set(path, copyOf(file));
        }
      },
    }));
    return copy;
  }
}
