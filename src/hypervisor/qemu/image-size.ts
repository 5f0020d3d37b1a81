import { stat } from 'node:fs/promises';
import { systemCodeOf } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';
import type { ImageFile } from '../images.ts';

/** The size of a disk as a guest sees it; undefined if the file is not there. */
export async function sizeOf({ path, format }: ImageFile): Promise<number | undefined> {
  try {
    const { size } = await stat(path);
    if (format === 'raw') return size;
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  const { stdout } = await runCommand('qemu-img', ['info', '-U', '--output=json', '-f', format, path]);
  const info = JSON.parse(stdout) as { readonly 'virtual-size'?: unknown };
  return typeof info['virtual-size'] === 'number' ? info['virtual-size'] : undefined;
}
