import {
  chmod,
  constants,
  mkdir,
  type FileHandle as NodeHandle,
  open,
  readdir,
  rename,
  rm,
  stat,
} from 'node:fs/promises';
import { dirname } from 'node:path';
import { PAGE_BYTES } from './aligned-buffer.ts';
import { assert } from './assert.ts';
import { isFailure, systemCodeOf } from './errors.ts';
import { type FileHandle, type FileSystem, fileFailure } from './files.ts';

const FLAGS = {
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
  update: constants.O_RDWR,
  read: constants.O_RDONLY,
} as const;

/** The file system of this machine. */
export const nodeFiles: FileSystem = {
  async open(path, how) {
    const act = how === 'read' ? 'read' : 'write';
    return new NodeFile(
      path,
      await doing(act, path, () => open(path, FLAGS[how] | constants.O_NOFOLLOW, 0o600)),
      how !== 'read',
    );
  },
  rename: (from, to) => doing('write', to, () => rename(from, to)),
  remove: (path) => doing('write', path, () => rm(path, { force: true })),
  async makeDirectory(path) {
    // One after the other, each durable before the next: so whoever finds a directory need not doubt those above it,
    // and only its own name is made durable again, in case its maker was killed in between.
    const parent = dirname(path);
    const isPresent = await doing('read', parent, () => orUndefined(() => stat(parent)));
    if (!isPresent) await nodeFiles.makeDirectory(parent);
    await doing('write', path, async () => {
      await mkdir(path, { recursive: true, mode: 0o700 });
    });
    await nodeFiles.syncDirectory(parent);
  },
  removeDirectory: (path) => doing('write', path, () => rm(path, { recursive: true, force: true })),
  list: (path) => doing('read', path, () => orUndefined(async () => (await readdir(path)).sort())),
  sizeOf: (path) => doing('read', path, () => orUndefined(async () => (await stat(path)).size)),
  async syncDirectory(path) {
    const handle = await doing('sync', path, () => open(path, constants.O_RDONLY | constants.O_DIRECTORY));
    try {
      await doing('sync', path, () => handle.sync());
    } finally {
      await handle.close();
    }
  },
  setReadOnly: (path, readOnly) => doing('write', path, () => chmod(path, readOnly ? 0o400 : 0o600)),
};

async function doing<T>(act: 'read' | 'write' | 'sync', path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fileFailure(act, path, error);
  }
}

async function orUndefined<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

class NodeFile implements FileHandle {
  readonly #path: string;
  readonly #handle: NodeHandle;
  readonly #isWritable: boolean;
  /** The same file without the page cache, from the first direct write on; undefined if there is no such way. */
  #direct: Promise<NodeHandle | undefined> | undefined;
  #directRefused = false;

  constructor(path: string, handle: NodeHandle, isWritable: boolean) {
    this.#path = path;
    this.#handle = handle;
    this.#isWritable = isWritable;
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return doing('read', this.#path, async () => {
      let done = 0;
      while (done < target.length) {
        const { bytesRead } = await this.#handle.read(target, done, target.length - done, position + done);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    });
  }

  write(data: Uint8Array, position: number): Promise<void> {
    return doing('write', this.#path, () => writeWhole(this.#handle, data, position));
  }

  async writeDirect(data: Uint8Array, position: number): Promise<'direct' | 'cached'> {
    assert(data.length % PAGE_BYTES === 0 && position % PAGE_BYTES === 0, 'direct writes are whole pages');
    this.#direct ??= this.#openDirect();
    const direct = await this.#direct;
    if (direct !== undefined && !this.#directRefused) {
      try {
        await doing('write', this.#path, () => writeWhole(direct, data, position));
        return 'direct';
      } catch (error) {
        if (!isFailure(error) || systemCodeOf(error.cause) !== 'EINVAL') throw error;
        // Memory or place are not as this file system wants them. It will not change its mind: it is asked once.
        this.#directRefused = true;
      }
    }
    await this.write(data, position);
    return 'cached';
  }

  /**
   * The file itself once more, whatever its name is by now. Whatever hinders that (a file system without direct writing, a
   * system without /proc), the other way is as right, and has its own words for what is wrong with the file.
   */
  async #openDirect(): Promise<NodeHandle | undefined> {
    if (!this.#isWritable) return undefined;
    try {
      return await open(`/proc/self/fd/${this.#handle.fd}`, constants.O_WRONLY | constants.O_DIRECT);
    } catch {
      return undefined;
    }
  }

  async writeAll(buffers: readonly Uint8Array[], position: number): Promise<void> {
    const total = buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    const written = await doing('write', this.#path, async () => {
      return (await this.#handle.writev([...buffers], position)).bytesWritten;
    });
    if (written === total) return;
    // A short vector write is rare (quota, signals): go on from where it stopped, buffer by buffer.
    let skip = written;
    let at = position;
    for (const buffer of buffers) {
      if (skip < buffer.length) await this.write(buffer.subarray(skip), at + skip);
      skip = Math.max(0, skip - buffer.length);
      at += buffer.length;
    }
  }

  truncate(sizeBytes: number): Promise<void> {
    return doing('write', this.#path, () => this.#handle.truncate(sizeBytes));
  }

  async sizeBytes(): Promise<number> {
    return (await doing('read', this.#path, () => this.#handle.stat())).size;
  }

  sync(): Promise<void> {
    return doing('sync', this.#path, () => this.#handle.sync());
  }

  async close(): Promise<void> {
    const direct = await this.#direct;
    await doing('write', this.#path, async () => {
      try {
        await direct?.close();
      } finally {
        await this.#handle.close();
      }
    });
  }
}

async function writeWhole(handle: NodeHandle, data: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < data.length) {
    const { bytesWritten } = await handle.write(data, done, data.length - done, position + done);
    done += bytesWritten;
  }
}
