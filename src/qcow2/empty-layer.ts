import { dirname } from 'node:path';
import { type FileSystem, fileFailure } from '../lib/files.ts';
import { writeHeader, writeTables } from './layer-metadata.ts';
import { checkShape, firstFreeClusterOf, type LayerShape } from './layer-shape.ts';

/**
 * Makes a layer that holds nothing: a complete, valid qcow2 image on return, which QEMU may open for
 * writing as the tip of a chain. The name must not exist. It is written aside (`path + '.new'`: one writer per path)
 * and renamed, so that whatever bears the name is complete. If anything fails, both names are gone.
 *
 * With `sync` the file and its name survive a power cut once this has returned; without, the caller sees to
 * that, and a power cut may leave a damaged file under the name.
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
  if ((await files.sizeOf(path)) !== undefined) {
    throw fileFailure('write', path, new Error('a file of that name exists'));
  }
  const aside = `${path}.new`;
  await files.remove(aside);
  const file = await files.open(aside, 'create');
  let renamed = false;
  let complete = false;
  try {
    try {
      await writeTables(file, shape, { tables: new Map(), nextCluster: firstFreeClusterOf(shape) });
      await writeHeader(file, shape);
      if (o.sync) await file.sync();
    } finally {
      await file.close();
    }
    await files.rename(aside, path);
    renamed = true;
    if (o.sync) await files.syncDirectory(dirname(path));
    complete = true;
  } finally {
    if (!complete) await files.remove(renamed ? path : aside);
  }
}
