import { stat, statfs } from 'node:fs/promises';
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
