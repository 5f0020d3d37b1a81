import { access, constants, lstat, readdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCodeOf } from './errors.ts';
import { fileFailure } from './files.ts';

/** Space on the file system that holds `path`: what an unprivileged writer may still use, and all there is. */
export async function spaceAt(path: string): Promise<{ freeBytes: number; totalBytes: number }> {
  try {
    const { bavail, blocks, bsize } = await statfs(path);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  } catch (error) {
    throw fileFailure('read', path, error);
  }
}

/** The permission bits of a file or directory, as in `chmod`. */
export async function modeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).mode & 0o777;
  } catch (error) {
    throw fileFailure('read', path, error);
  }
}

/** Who can change what is at a path, by itself: a link is not followed. */
export interface PathGuard {
  readonly kind: 'file' | 'directory' | 'other';
  readonly ownerId: number;
  /** As in `chmod`. */
  readonly mode: number;
}

/** Undefined where there is nothing. */
export async function guardOf(path: string): Promise<PathGuard | undefined> {
  try {
    const about = await lstat(path);
    const kind = about.isFile() ? 'file' : about.isDirectory() ? 'directory' : 'other';
    return { kind, ownerId: about.uid, mode: about.mode & 0o777 };
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw fileFailure('read', path, error);
  }
}

/** What is in a directory, with its permission bits. What goes meanwhile is left out. */
export async function modesIn(
  directory: string,
): Promise<{ path: string; mode: number; isDirectory: boolean }[]> {
  try {
    const found = [];
    for (const name of await readdir(directory)) {
      const path = join(directory, name);
      const about = await stat(path).catch((error: unknown) => {
        if (systemCodeOf(error) === 'ENOENT') return undefined;
        throw error;
      });
      if (about) found.push({ path, mode: about.mode & 0o777, isDirectory: about.isDirectory() });
    }
    return found;
  } catch (error) {
    throw fileFailure('read', directory, error);
  }
}

const RIGHTS = {
  read: constants.R_OK,
  'read and write': constants.R_OK | constants.W_OK,
  enter: constants.X_OK,
};
/** What somebody wants to do with a path. */
export type Right = keyof typeof RIGHTS;

/** Why this process may not use a path so, as the system says it (access(2)): `ENOENT`, `EACCES`, `EROFS` …; undefined if it may. */
export async function lackOf(path: string, right: Right): Promise<string | undefined> {
  try {
    await access(path, RIGHTS[right]);
    return undefined;
  } catch (error) {
    const code = systemCodeOf(error);
    if (code !== undefined) return code;
    throw error;
  }
}

/** The space that a file takes on its file system, holes not counted; 0 for one that is not there. */
export async function allocatedBytes(path: string): Promise<number> {
  try {
    // Blocks are of 512 bytes whatever the file system's are (stat(2)).
    return (await stat(path)).blocks * 512;
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return 0;
    throw fileFailure('read', path, error);
  }
}

/** All files below a directory, by their paths; none where there is no such directory. */
export async function filesBelow(directory: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory())
      .map(({ parentPath, name }) => join(parentPath, name));
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return [];
    throw fileFailure('read', directory, error);
  }
}
