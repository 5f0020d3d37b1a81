import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { allocatedBytes, spaceAt } from '../../src/lib/host-files.ts';
import { runCommand } from '../../src/lib/processes.ts';
import type { CleanUp } from './temporary.ts';

/** A file system of its own, so small that it can be full. */
export interface SmallFileSystem {
  /** Leaves so many bytes free and no more, whatever was free before. */
  fill(leftBytes: number): Promise<void>;
  /** Takes back what `fill` has taken. */
  makeRoom(): Promise<void>;
}

/** Mounts a new file system, in memory, on `directory`, which is made, until the test ends. */
export async function smallFileSystem(
  t: CleanUp,
  directory: string,
  sizeBytes: number,
): Promise<SmallFileSystem> {
  await mkdir(directory, { mode: 0o700 });
  try {
    await runCommand('mount', [
      '-t',
      'tmpfs',
      '-o',
      `size=${sizeBytes},mode=700`,
      'warmsite-test',
      directory,
    ]);
  } catch (cause) {
    throw new Error('a full disk is tried on a file system of its own: run this test as root', { cause });
  }
  t.after(async () => void (await runCommand('umount', [directory])));
  const filler = join(directory, 'filler');
  return {
    fill: async (leftBytes) => {
      const { freeBytes } = await spaceAt(directory);
      const fillerBytes = await allocatedBytes(filler);
      const bytes = String(fillerBytes + freeBytes - leftBytes);
      if (freeBytes >= leftBytes) await runCommand('fallocate', ['-l', bytes, filler]);
      else await runCommand('truncate', ['-s', bytes, filler]);
    },
    makeRoom: () => rm(filler, { force: true }),
  };
}
