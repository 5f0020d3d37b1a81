import type { FileSystem } from '../../lib/files.ts';

/** Layers in the directory of a machine that a person has set aside (`ProtectedLayout`): nobody's to throw away with it. */
export async function keptLayers(files: FileSystem, directory: string): Promise<string[]> {
  return ((await files.list(directory)) ?? []).filter((name) => name.startsWith('set-aside-'));
}
