import { stat, statfs } from 'node:fs/promises';
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
