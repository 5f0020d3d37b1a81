import { libFailure } from '../../../src/lib/errors.ts';
import type { FileHandle, FileSystem } from '../../../src/lib/files.ts';

const PAGE = 4096;

/** Sparse content of one file. */
class MemoryFile {
  readonly pages = new Map<number, Buffer>();
  sizeBytes = 0;

  read(target: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(target.length, this.sizeBytes - position));
    for (let done = 0; done < length; ) {
      const at = position + done;
      const within = at % PAGE;
      const count = Math.min(PAGE - within, length - done);
      const page = this.pages.get((at - within) / PAGE);
      if (page) target.set(page.subarray(within, within + count), done);
      else target.fill(0, done, done + count);
      done += count;
    }
    return length;
  }

  write(data: Uint8Array, position: number): void {
    for (let done = 0; done < data.length; ) {
      const at = position + done;
      const within = at % PAGE;
      const count = Math.min(PAGE - within, data.length - done);
      const index = (at - within) / PAGE;
      const page = this.pages.get(index) ?? Buffer.alloc(PAGE);
      page.set(data.subarray(done, done + count), within);
      this.pages.set(index, page);
      done += count;
    }
    this.sizeBytes = Math.max(this.sizeBytes, position + data.length);
  }

  truncate(sizeBytes: number): void {
    for (const index of [...this.pages.keys()]) {
      if (index * PAGE >= sizeBytes) this.pages.delete(index);
    }
    this.pages.get(Math.floor(sizeBytes / PAGE))?.fill(0, sizeBytes % PAGE);
    this.sizeBytes = sizeBytes;
  }
}

export interface FileEvent {
  readonly act: 'write' | 'writeDirect' | 'truncate' | 'sync' | 'syncDirectory' | 'close';
  readonly position: number;
  readonly length: number;
}

/**
 * Files in memory that record what was done to them and can fail at a chosen act: the `failAt`-th write,
 * truncation or sync from now on fails, a write after half of its bytes.
 */
export class MemoryFiles implements FileSystem {
  readonly events: FileEvent[] = [];
  failAt = Number.POSITIVE_INFINITY;
  openHandles = 0;
  readonly #files = new Map<string, MemoryFile>();

  async open(path: string, how: 'create' | 'update' | 'read'): Promise<FileHandle> {
    const existing = this.#files.get(path);
    if (how === 'create' ? existing : !existing) throw libFailure('FILE_UNREADABLE', `cannot open ${path}`);
    const file = existing ?? new MemoryFile();
    this.#files.set(path, file);
    this.openHandles++;
    return this.#handle(file);
  }

  #handle(file: MemoryFile): FileHandle {
    const write = async (
      data: Uint8Array,
      position: number,
      act: 'write' | 'writeDirect' = 'write',
    ): Promise<void> => {
      try {
        this.#record(act, position, data.length);
      } catch (error) {
        file.write(data.subarray(0, data.length >> 1), position);
        throw error;
      }
      file.write(data, position);
    };
    return {
      read: async (target, position) => file.read(target, position),
      write,
      writeAll: async (buffers, position) => write(Buffer.concat(buffers), position),
      writeDirect: async (data, position) => {
        await write(data, position, 'writeDirect');
        return 'direct';
      },
      truncate: async (sizeBytes) => {
        this.#record('truncate', sizeBytes, 0);
        file.truncate(sizeBytes);
      },
      sizeBytes: async () => file.sizeBytes,
      sync: async () => this.#record('sync', 0, 0),
      close: async () => {
        this.events.push({ act: 'close', position: 0, length: 0 });
        this.openHandles--;
      },
    };
  }

  #record(
    act: 'write' | 'writeDirect' | 'truncate' | 'sync' | 'syncDirectory',
    position: number,
    length: number,
  ): void {
    if (--this.failAt === 0) {
      throw libFailure(act.startsWith('write') ? 'DISK_FULL' : 'FSYNC_FAILED', `the disk failed at a ${act}`);
    }
    this.events.push({ act, position, length });
  }

  async rename(from: string, to: string): Promise<void> {
    this.#files.set(to, this.#files.get(from)!);
    this.#files.delete(from);
  }
  async remove(path: string): Promise<void> {
    this.#files.delete(path);
  }
  async makeDirectory(): Promise<void> {
    // Every directory exists.
  }
  async removeDirectory(): Promise<void> {
    throw new Error('not needed');
  }
  async list(): Promise<string[]> {
    return [...this.#files.keys()].sort();
  }
  async sizeOf(path: string): Promise<number | undefined> {
    return this.#files.get(path)?.sizeBytes;
  }
  async syncDirectory(): Promise<void> {
    this.#record('syncDirectory', 0, 0);
  }
  async setReadOnly(): Promise<void> {
    // Nothing to guard.
  }

  /** The whole of a file as its size and its pages that are not zero: equal files give equal results. */
  contentOf(path: string): { sizeBytes: number; pages: string[] } {
    const file = this.#files.get(path)!;
    const pages = [...file.pages]
      .filter(([, page]) => page.some((byte) => byte !== 0))
      .sort(([a], [b]) => a - b)
      .map(([index, page]) => `${index}:${page.toString('latin1')}`);
    return { sizeBytes: file.sizeBytes, pages };
  }

  /** Overwrites bytes, as damage or a stranger would. */
  patch(path: string, position: number, bytes: Uint8Array): void {
    this.#files.get(path)!.write(bytes, position);
  }
}
