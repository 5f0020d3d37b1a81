import { dirname } from 'node:path';
import type { FileSystem } from '../lib/files.ts';
import { writeHeader, writeTables } from './layer-metadata.ts';
import { checkShape, firstFreeClusterOf, type LayerShape } from './layer-shape.ts';

/**
 * Makes a layer that holds nothing: a complete, valid qcow2 image on return, which QEMU may open for
 * writing as the tip of a chain. The name must not exist. If anything fails, the file is removed.
 *
 * With `sync` the file and its name survive a power cut once this has returned; without, the caller sees to
 * that. A power cut before may leave a damaged file under the name.
 *
 * Failures: QCOW2_SHAPE_UNSUPPORTED, QCOW2_BACKING_REFUSED before anything is made; those of `FileSystem`.
 */
export async function createEmptyLayer(
  files: FileSystem,
  path: string,
  shape: LayerShape,
  o: { sync: boolean },
): Promise<void> {
  checkShape(shape);
  const file = await files.open(path, 'create');
  let complete = false;
  try {
    try {
      await writeTables(file, shape, { tables: new Map(), nextCluster: firstFreeClusterOf(shape) });
      await writeHeader(file, shape);
      if (o.sync) await file.sync();
    } finally {
      await file.close();
    }
    if (o.sync) await files.syncDirectory(dirname(path));
    complete = true;
  } finally {
    if (!complete) await files.remove(path);
  }
}
