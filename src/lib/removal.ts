import { dirname } from 'node:path';
import { type FileSystem, publishFile } from './files.ts';

/** Directories that a person has decided to remove. The decision is durable before the first file goes, so that a removal that was cut short is ended later. */

const SIGN = '.removed';

/** Beside the directory: a person has decided that all of it goes. */
export function removalSign(directory: string): string {
  return `${directory}${SIGN}`;
}

/** The directories of a listing whose removal was begun, by name. */
export function removalsIn(names: readonly string[]): string[] {
  return names.filter((name) => name.endsWith(SIGN)).map((name) => name.slice(0, -SIGN.length));
}

/** Durable on return; nothing of the directory has gone. */
export function decideRemoval(files: FileSystem, directory: string): Promise<void> {
  return publishFile(files, removalSign(directory), new Uint8Array());
}

/** Nothing of the directory has gone, and nothing will. Durable on return. */
export async function withdrawRemoval(files: FileSystem, directory: string): Promise<void> {
  await files.remove(removalSign(directory));
  await files.syncDirectory(dirname(directory));
}

export async function isBeingRemoved(files: FileSystem, directory: string): Promise<boolean> {
  return (await files.sizeOf(removalSign(directory))) !== undefined;
}

/** May be repeated; the sign goes last, when the files have durably gone. */
export async function endRemoval(files: FileSystem, directory: string): Promise<void> {
  const parent = dirname(directory);
  // A process that was killed may have left the sign in the page cache alone.
  await files.syncDirectory(parent);
  await files.removeDirectory(directory);
  await files.syncDirectory(parent);
  await withdrawRemoval(files, directory);
}
