import { dirname, join } from 'node:path';
import { PAGE_BYTES } from '../../src/lib/aligned-buffer.ts';
import { assert } from '../../src/lib/assert.ts';
import { type FileHandle, type FileSystem, fileFailure } from '../../src/lib/files.ts';
import { type Actor, AT_ONCE } from '../support/actor.ts';
import { type DiskAct, DiskFaults } from './faults.ts';
import type { SimDisk, SimFile } from './sim-disk.ts';

/** The file system of one process on a simulated disk. */
export class SimFiles implements FileSystem {
  readonly #disk: SimDisk;
  readonly #actor: Actor;
  readonly #faults: DiskFaults;
  /** Paths of handles that have been opened and not closed. */
  readonly opened = new Set<{ readonly path: string }>();

  constructor(disk: SimDisk, actor: Actor = AT_ONCE, faults: DiskFaults = new DiskFaults()) {
    this.#disk = disk;
    this.#actor = actor;
    this.#faults = faults;
  }

  open(path: string, how: 'create' | 'update' | 'read'): Promise<FileHandle> {
    return this.#doing('open', how === 'read' ? 'read' : 'write', path, () => {
      const existing = this.#disk.file(path);
      if (how === 'create' ? existing : !existing) throw systemError(existing ? 'EEXIST' : 'ENOENT', path);
      if (how === 'update' && existing?.readOnly) throw systemError('EACCES', path);
      if (how === 'create') this.#needDirectory(dirname(path));
      const handle = { path };
      this.opened.add(handle);
      return this.#handle(path, existing ?? this.#disk.create(path), how !== 'read', () =>
        this.opened.delete(handle),
      );
    });
  }

  #handle(path: string, file: SimFile, isWritable: boolean, onClose: () => void): FileHandle {
    let isOpen = true;
    const use = () => {
      if (!isOpen) throw new Error(`${path} is used after it was closed`);
    };
    const write = (data: Uint8Array, position: number) => {
      use();
      return this.#doing(
        'write',
        'write',
        path,
        () => {
          if (!isWritable) throw systemError('EBADF', path);
          file.write(data, position);
        },
        () => file.write(data.subarray(0, wholeSectors(data.length >> 1, position)), position),
      );
    };
    return {
      read: (target, position) => {
        use();
        return this.#doing('read', 'read', path, () => file.read(target, position));
      },
      write,
      writeAll: (buffers, position) => write(Buffer.concat(buffers), position),
      // The device has a cache too: what went past that of the system is no safer.
      writeDirect: async (data, position) => {
        assert(
          data.length % PAGE_BYTES === 0 && position % PAGE_BYTES === 0,
          'direct writes are whole pages',
        );
        await write(data, position);
        return 'direct';
      },
      truncate: (sizeBytes) => {
        use();
        return this.#doing('truncate', 'write', path, () => file.truncate(sizeBytes));
      },
      sizeBytes: () => {
        use();
        return this.#doing('sizeOf', 'read', path, () => file.sizeBytes);
      },
      sync: () => {
        use();
        return this.#doing(
          'sync',
          'sync',
          path,
          () => file.sync(),
          // Who only reads syncs for another: were a killed guest's last writes dropped here, no product could help it.
          () => (isWritable ? file.failSync() : undefined),
        );
      },
      close: async () => {
        use();
        isOpen = false;
        onClose();
      },
    };
  }

  rename(from: string, to: string): Promise<void> {
    return this.#doing('rename', 'write', to, () => {
      if (!this.#disk.file(from)) throw systemError('ENOENT', from);
      this.#needDirectory(dirname(to));
      this.#disk.rename(from, to);
    });
  }

  remove(path: string): Promise<void> {
    return this.#doing('remove', 'write', path, () => {
      if (this.#disk.file(path)) this.#disk.remove(path);
    });
  }

  async makeDirectory(path: string): Promise<void> {
    const parent = dirname(path);
    if (!this.#disk.isDirectory(parent)) await this.makeDirectory(parent);
    await this.#doing('makeDirectory', 'write', path, () => {
      this.#needDirectory(parent);
      if (!this.#disk.isDirectory(path)) this.#disk.makeDirectory(path);
    });
    await this.syncDirectory(parent);
  }

  /** One entry at a time: whoever is killed meanwhile leaves the rest. */
  async removeDirectory(path: string): Promise<void> {
    if (!this.#disk.isDirectory(path)) return this.remove(path);
    for (const name of this.#disk.list(path)) await this.removeDirectory(join(path, name));
    await this.#doing('remove', 'write', path, () => {
      if (this.#disk.list(path).length > 0) throw systemError('ENOTEMPTY', path);
      this.#disk.removeDirectory(path);
    });
  }

  list(path: string): Promise<string[] | undefined> {
    return this.#doing('list', 'read', path, () => {
      if (this.#disk.file(path)) throw systemError('ENOTDIR', path);
      return this.#disk.isDirectory(path) ? this.#disk.list(path) : undefined;
    });
  }

  sizeOf(path: string): Promise<number | undefined> {
    return this.#doing('sizeOf', 'read', path, () => this.#disk.file(path)?.sizeBytes);
  }

  syncDirectory(path: string): Promise<void> {
    return this.#doing('syncDirectory', 'sync', path, () => {
      this.#needDirectory(path);
      this.#disk.syncDirectory(path);
    });
  }

  setReadOnly(path: string, readOnly: boolean): Promise<void> {
    return this.#doing('rename', 'write', path, () => {
      const file = this.#disk.file(path);
      if (!file) throw systemError('ENOENT', path);
      file.readOnly = readOnly;
    });
  }

  #needDirectory(path: string): void {
    if (!this.#disk.isDirectory(path)) throw systemError('ENOENT', path);
  }

  #doing<T>(
    act: DiskAct,
    kind: 'read' | 'write' | 'sync',
    path: string,
    effect: () => T,
    onFault: () => void = () => undefined,
  ): Promise<T> {
    return this.#actor.turn(`${act} ${path}`, () => {
      try {
        const fault = this.#faults.strike(act);
        if (fault) {
          onFault();
          throw systemError(fault, path);
        }
        return effect();
      } catch (error) {
        throw fileFailure(kind, path, error);
      }
    });
  }
}

/** Of a write that fails half-way: the bytes up to the last border of a sector, for a sector is written whole or not. */
function wholeSectors(length: number, position: number): number {
  return Math.max(0, length - ((position + length) % 512));
}

function systemError(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
