import { type FileHandle, type FileSystem, fileFailure } from '../../src/lib/files.ts';

/** A file system that is full when `roomBytes` have been written: set it anew to make room. */
export interface LimitedFiles extends FileSystem {
  roomBytes: number;
}

/** `inner` with a limit to what may be written; what was in it already and what others write is not counted. */
export function limitedFiles(inner: FileSystem): LimitedFiles {
  const limited: LimitedFiles = {
    ...inner,
    roomBytes: Number.POSITIVE_INFINITY,
    open: async (path, how) => limitedHandle(limited, path, await inner.open(path, how)),
  };
  return limited;
}

function limitedHandle(limited: LimitedFiles, path: string, inner: FileHandle): FileHandle {
  const take = (bytes: number) => {
    if (bytes > limited.roomBytes) {
      throw fileFailure('write', path, Object.assign(new Error('no space left'), { code: 'ENOSPC' }));
    }
    limited.roomBytes -= bytes;
  };
  return {
    read: (target, position) => inner.read(target, position),
    write: async (data, position) => {
      take(data.length);
      await inner.write(data, position);
    },
    writeAll: async (buffers, position) => {
      take(buffers.reduce((sum, { length }) => sum + length, 0));
      await inner.writeAll(buffers, position);
    },
    writeDirect: async (data, position) => {
      take(data.length);
      return inner.writeDirect(data, position);
    },
    truncate: (sizeBytes) => inner.truncate(sizeBytes),
    sizeBytes: () => inner.sizeBytes(),
    sync: () => inner.sync(),
    close: () => inner.close(),
  };
}
