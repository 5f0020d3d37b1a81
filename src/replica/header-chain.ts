import { dirname, resolve } from 'node:path';
import type { FileSystem } from '../lib/files.ts';
import { readHeader } from '../qcow2/index.ts';

/**
 * The files that an image lies upon, itself first, by the names in the headers: what nothing else may be said to be of no use for. Headers
 * of files that `isOurs` does not admit are not read. Throws what hinders reading one of ours.
 */
export async function filesInHeaders(
  files: FileSystem,
  path: string,
  isOurs: (path: string) => boolean,
): Promise<string[]> {
  const chain: string[] = [];
  for (let at: string | undefined = resolve(path); at !== undefined && !chain.includes(at); ) {
    chain.push(at);
    if (!isOurs(at)) break;
    const { backing } = await readHeader(files, at);
    at = backing ? resolve(dirname(at), backing.name) : undefined;
  }
  return chain;
}
