import type { FileSystem } from '../../lib/files.ts';
import { controlFailure } from '../errors.ts';

/** Layers in the directory of a machine that a person has set aside (`ProtectedLayout`): nobody's to throw away with it. */
export async function keptLayers(files: FileSystem, directory: string): Promise<string[]> {
  return ((await files.list(directory)) ?? []).filter((name) => name.startsWith('set-aside-'));
}

/** To be asked before the directory of a machine goes. Throws MACHINE_LAYERS_KEPT. */
export async function checkNothingKept(
  files: FileSystem,
  { layout, record }: { readonly layout: Directory; readonly record: { readonly machineId: string } },
): Promise<void> {
  const { directory } = layout;
  const kept = await keptLayers(files, directory);
  if (kept.length === 0) return;
  const said = `layers that were set aside lie in ${directory}: ${kept.join(', ')}`;
  throw controlFailure('MACHINE_LAYERS_KEPT', said, { context: { machineId: record.machineId, directory } });
}

interface Directory {
  readonly directory: string;
}
