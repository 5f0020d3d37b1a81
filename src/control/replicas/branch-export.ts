import { join } from 'node:path';
import Type from 'typebox';
import type { DiskImages, ImageFile } from '../../hypervisor/index.ts';
import { throwIfAborted } from '../../lib/clock.ts';
import { piecesOf, totalLength } from '../../lib/extents.ts';
import type { FileSystem } from '../../lib/files.ts';
import { loadRecord, recordKind, storeRecord } from '../../lib/records.ts';
import { readAhead } from '../../replica/index.ts';
import { controlFailure } from '../errors.ts';

const ExportSchema = Type.Object({
  /** Which wrote it; absent in one of an earlier program. */
  jobId: Type.Optional(Type.String()),
  machineId: Type.String(),
  branchId: Type.String(),
  exportedAtMs: Type.Integer({ minimum: 0 }),
  disks: Type.Array(
    Type.Object({ diskId: Type.String(), file: Type.String(), sizeBytes: Type.Integer({ minimum: 512 }) }),
  ),
});
/** `export.json` in the directory of an export: what its files are. */
type ExportRecord = Type.Static<typeof ExportSchema>;
const EXPORT_RECORD = recordKind('branch-export', 1, ExportSchema);

/** Where the disks of a branch have been written to. */
export interface BranchExported extends ExportRecord {
  readonly directory: string;
}

const PIECE_BYTES = 1024 * 1024;

/** Where the export of one job is written until it is whole: what another job writes at the same time stays its own. */
function partialOf({ path, jobId }: ExportPlace): string {
  return join(path, `export-${jobId}.partial`);
}

interface ExportPlace {
  readonly jobId: string;
  readonly path: string;
}

/** What the export of a job has left that will not be ended. May be repeated. */
export function removePartialExport(files: FileSystem, place: ExportPlace): Promise<void> {
  return files.removeDirectory(partialOf(place));
}

/**
 * Writes the disks of a branch to raw files, as its guest would find them, in a directory of their own below `path`: sparse, not to be
 * written to, and durable on return. The directory gets its name when it is whole; what an export has left that was cut short is
 * begun anew, and what the same job has made is not made again. Whatever else has the name stays: a branch that was booted since is not what
 * was exported of it before. What is left of one that fails is for the caller to remove. Throws BRANCH_EXPORT_PATH.
 */
export async function exportBranch(
  { files, images }: { readonly files: FileSystem; readonly images: DiskImages },
  branch: {
    readonly machineId: string;
    readonly machineName: string;
    readonly branchId: string;
    readonly name: string;
    readonly disks: readonly { readonly diskId: string; readonly chain: readonly ImageFile[] }[];
  },
  o: ExportPlace & {
    readonly exportedAtMs: number;
    readonly signal: AbortSignal;
    readonly onProgress: (progress: { readonly bytesDone: number; readonly bytesTotal: number }) => void;
  },
): Promise<BranchExported> {
  const { machineId, branchId } = branch;
  const { jobId, exportedAtMs } = o;
  const directory = join(o.path, `${branch.machineName.replace(/[^A-Za-z0-9._-]/g, '_')}-${branch.name}`);
  if ((await files.list(o.path)) === undefined) throw pathFailure(`there is no directory ${o.path}`, o.path);
  if ((await files.list(directory)) !== undefined) {
    const known = await loadRecord(files, join(directory, 'export.json'), EXPORT_RECORD);
    if (known?.jobId !== jobId) throw pathFailure(`${directory} is there already`, directory);
    // The process that gave it its name may have ended before that was durable.
    await files.syncDirectory(o.path);
    return { ...known, directory };
  }
  const aside = partialOf(o);
  await files.removeDirectory(aside);
  await files.makeDirectory(aside);
  const disks: ExportRecord['disks'] = [];
  for (const { diskId, chain } of branch.disks) {
    const file = `${diskId}.raw`;
    const sizeBytes = await writeRaw({ files, images }, chain, join(aside, file), o);
    disks.push({ diskId, file, sizeBytes });
  }
  const record = { jobId, machineId, branchId, exportedAtMs, disks };
  await storeRecord(files, join(aside, 'export.json'), EXPORT_RECORD, record);
  await files.rename(aside, directory);
  await files.syncDirectory(o.path);
  return { ...record, directory };
}

async function writeRaw(
  { files, images }: { readonly files: FileSystem; readonly images: DiskImages },
  chain: readonly ImageFile[],
  path: string,
  { signal, onProgress }: Pick<Parameters<typeof exportBranch>[2], 'signal' | 'onProgress'>,
): Promise<number> {
  await using reader = await images.open(chain);
  const { data: extents } = await reader.contentExtents();
  const file = await files.open(path, 'create');
  try {
    const bytesTotal = totalLength(extents);
    let bytesDone = 0;
    for await (const { piece, data } of readAhead(reader, piecesOf(extents, PIECE_BYTES), { signal })) {
      throwIfAborted(signal);
      await file.write(data, piece.offset);
      bytesDone += data.length;
      onProgress({ bytesDone, bytesTotal });
    }
    await file.truncate(reader.sizeBytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.setReadOnly(path, true);
  return reader.sizeBytes;
}

function pathFailure(said: string, path: string) {
  return controlFailure('BRANCH_EXPORT_PATH', said, { context: { path } });
}
