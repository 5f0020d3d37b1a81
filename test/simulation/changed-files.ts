import type { FileHandle, FileSystem } from '../../src/lib/files.ts';

/** The same file system with some calls replaced. */
export function filesWith(files: FileSystem, changed: Partial<FileSystem>): FileSystem {
  return {
    open: (path, how) => files.open(path, how),
    rename: (from, to) => files.rename(from, to),
    remove: (path) => files.remove(path),
    makeDirectory: (path) => files.makeDirectory(path),
    removeDirectory: (path) => files.removeDirectory(path),
    list: (path) => files.list(path),
    sizeOf: (path) => files.sizeOf(path),
    syncDirectory: (path) => files.syncDirectory(path),
    setReadOnly: (path, readOnly) => files.setReadOnly(path, readOnly),
    ...changed,
  };
}

/** The same file system with every handle changed. */
export function withHandles(
  files: FileSystem,
  change: (handle: FileHandle, path: string) => FileHandle,
): FileSystem {
  return filesWith(files, { open: async (path, how) => change(await files.open(path, how), path) });
}

/** The same file system, with the sync of the files that `isAffected` names left out. */
export function withoutSync(files: FileSystem, isAffected: (path: string) => boolean): FileSystem {
  return withHandles(files, (handle, path) =>
    isAffected(path) ? { ...handle, sync: async () => undefined } : handle,
  );
}
