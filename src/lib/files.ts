import { dirname } from 'node:path';
import { Failure, libFailure, messageOf, systemCodeOf } from './errors.ts';

/**
 * Files as the durable parts of Warmsite see them: few calls, each with a stated durability, so that a
 * simulated disk that loses, reorders and tears what was not synced can stand in for the real one.
 *
 * What an implementation must provide: `sync` makes the file's bytes and size durable; `syncDirectory`
 * makes the names in a directory durable; `rename` replaces atomically but is durable only after
 * `syncDirectory`. A failed `sync` is final: the handle must not be used again, because the kernel may
 * have dropped the dirty pages and a second sync would succeed and lie.
 *
 * Failures: FILE_UNREADABLE, FILE_UNWRITABLE, DISK_FULL, FSYNC_FAILED. A missing file is `undefined` where
 * the signature says so and FILE_UNREADABLE elsewhere; an unreadable listing is never an empty one.
 */
export interface FileSystem {
  /**
   * `create` fails if the name exists (mode 0600); `update` opens an existing file for reading and writing;
   * `read` opens it for reading only.
   */
  open(path: string, how: 'create' | 'update' | 'read'): Promise<FileHandle>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file; a missing one is fine, so that a repeated removal is too. */
  remove(path: string): Promise<void>;
  /**
   * Makes a directory and its missing parents with mode 0700; an existing one is fine. Its name and theirs are durable
   * on return: what is stored in it afterwards needs no look upwards.
   */
  makeDirectory(path: string): Promise<void>;
  /** Removes a directory with everything in it; a missing one is fine. */
  removeDirectory(path: string): Promise<void>;
  /** The names in a directory, sorted; undefined if there is no such directory. */
  list(path: string): Promise<string[] | undefined>;
  sizeOf(path: string): Promise<number | undefined>;
  syncDirectory(path: string): Promise<void>;
  /** Takes or gives the write permission of a published file: a guard against accidents, not against root. */
  setReadOnly(path: string, readOnly: boolean): Promise<void>;
}

export interface FileHandle {
  /** Reads up to `target.length` bytes at `position`; fewer only at the end of the file. */
  read(target: Uint8Array, position: number): Promise<number>;
  /** Writes all of `data` at `position`. */
  write(data: Uint8Array, position: number): Promise<void>;
  /** Writes the buffers one after the other from `position` on. */
  writeAll(buffers: readonly Uint8Array[], position: number): Promise<void>;
  /**
   * As `write`, but past the page cache where the system can do that: for much data that nobody reads soon. No more
   * durable than `write`: the device has a cache too, and `sync` is due all the same.
   *
   * `data` is whole pages of 4 KiB, lies in an `alignedBuffer` from a page border on, and goes to a multiple of 4 KiB. It must not
   * change until the promise has settled; neither may another write touch the same pages. Several may be under way.
   * Resolves with the way that was taken: a system that refuses the direct one gets the same bytes by the other.
   */
  writeDirect(data: Uint8Array, position: number): Promise<'direct' | 'cached'>;
  truncate(sizeBytes: number): Promise<void>;
  sizeBytes(): Promise<number>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** The failure for what the operating system said, naming path and act. */
export function fileFailure(act: 'read' | 'write' | 'sync', path: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const system = systemCodeOf(error);
  const code =
    system === 'ENOSPC' || system === 'EDQUOT'
      ? 'DISK_FULL'
      : act === 'sync'
        ? 'FSYNC_FAILED'
        : act === 'write'
          ? 'FILE_UNWRITABLE'
          : 'FILE_UNREADABLE';
  return libFailure(code, `cannot ${act} ${path}: ${messageOf(error)}`, {
    context: { path, system: system ?? null },
    cause: error,
  });
}

/**
 * Publishes a small file: write aside, sync the file, rename, sync the directory, in that order. After it
 * returns the whole content survives a power cut; before, either the old content or none is seen, never a
 * part. `path + '.new'` is its scratch name: one writer per path.
 */
export async function publishFile(files: FileSystem, path: string, bytes: Uint8Array): Promise<void> {
  const aside = `${path}.new`;
  await files.remove(aside);
  const handle = await files.open(aside, 'create');
  try {
    await handle.write(bytes, 0);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await files.rename(aside, path);
  await files.syncDirectory(dirname(path));
}

/**
 * Removes files as `remove` does, but does not wait for their space: a system that has thousands of scattered pieces to give
 * back may take seconds for it. The names are gone on return. `freed` never rejects; a caller that removes again and again
 * awaits the last one first, so that not more and more waits to be freed.
 */
export async function removeUnwaited(
  files: FileSystem,
  paths: readonly string[],
): Promise<{ readonly freed: Promise<void> }> {
  const closing: Promise<void>[] = [];
  for (const path of paths) {
    if ((await files.sizeOf(path)) === undefined) continue;
    // An open file keeps its space when its name goes; closing it is what takes the time.
    const handle = await files.open(path, 'read');
    try {
      await files.remove(path);
    } finally {
      closing.push(handle.close());
    }
  }
  const freed = Promise.allSettled(closing).then(() => undefined);
  return { freed };
}

/**
 * The whole of a small file, or undefined if there is none; larger than `limitBytes` is RECORD_CORRUPT. Of a file that is published
 * anew meanwhile it is the old content or the new: size and content are asked of one open file.
 */
export async function readSmallFile(
  files: FileSystem,
  path: string,
  limitBytes: number,
): Promise<Buffer | undefined> {
  const handle = await openIfThere(files, path);
  if (!handle) return undefined;
  try {
    const sizeBytes = await handle.sizeBytes();
    if (sizeBytes > limitBytes) {
      throw libFailure(
        'RECORD_CORRUPT',
        `${path} has ${sizeBytes} bytes, more than the ${limitBytes} allowed`,
        {
          context: { path, sizeBytes },
        },
      );
    }
    const bytes = Buffer.alloc(sizeBytes);
    const got = await handle.read(bytes, 0);
    return bytes.subarray(0, got);
  } finally {
    await handle.close();
  }
}

async function openIfThere(files: FileSystem, path: string): Promise<FileHandle | undefined> {
  try {
    return await files.open(path, 'read');
  } catch (error) {
    if (error instanceof Failure && error.context.system === 'ENOENT') return undefined;
    throw error;
  }
}
