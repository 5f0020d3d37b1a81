import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import type { FileHandle, FileSystem } from '../lib/files.ts';
import type { SignedStatement } from '../recovery-point/index.ts';
import { encodeSeedEnd, SEED_SUFFIX, SeedFile, type SeedManifest } from '../replica/index.ts';
import { replicationFailure } from './errors.ts';

export interface SeedExportOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?:
    | ((progress: { readonly bytesDone: number; readonly bytesTotal: number }) => void)
    | undefined;
}

/** A seed that has been written, durable under its name. */
export interface SeedExported {
  readonly path: string;
  readonly pointId: string;
  readonly sequence: number;
  readonly bytes: number;
}

/** Which state of a machine a seed is of. */
interface SeedName {
  readonly machineName: string;
  readonly sequence: number;
  readonly pointId: string;
}

/**
 * Where a seed goes: a directory takes it under a name of its own, anything else is the name. Whatever is there already is
 * left alone, but for a seed of this very point: its export was killed before it was recorded, or is repeated. Throws
 * REPLICATION_SEED_PATH.
 */
export async function seedPath(
  files: FileSystem,
  path: string,
  o: SeedName,
): Promise<{ readonly file: string; readonly known: SeedManifest | undefined }> {
  if ((await files.list(dirname(path))) === undefined) {
    throw replicationFailure('REPLICATION_SEED_PATH', `there is no directory ${dirname(path)}`, {
      context: { path },
    });
  }
  const file = await fileOf(files, path, o);
  if ((await files.sizeOf(file)) === undefined) return { file, known: undefined };
  const known = await manifestOf(files, file);
  if (known?.signed.statement.pointId === o.pointId) return { file, known };
  throw replicationFailure('REPLICATION_SEED_PATH', `${file} is there already`, { context: { path: file } });
}

async function fileOf(files: FileSystem, path: string, o: SeedName): Promise<string> {
  const isDirectory = await files.list(path).then(
    (names) => names !== undefined,
    // What cannot be listed because it is a file is one.
    () => false,
  );
  const name = `${o.machineName.replace(/[^A-Za-z0-9._-]/g, '_')}-${o.sequence}-${o.pointId}${SEED_SUFFIX}`;
  return isDirectory ? join(path, name) : path;
}

/** What an export to this path has left that will not be ended; a seed that is whole stays. May be repeated. */
export async function removePartialSeed(files: FileSystem, path: string, o: SeedName): Promise<void> {
  await files.remove(partialOf(await fileOf(files, path, o)));
}

/** A seed that is there already, as if it had just been written. */
export function exportedAs(path: string, { signed, streamBytes }: SeedManifest): SeedExported {
  const { pointId, sequence } = signed.statement;
  return { path, pointId, sequence, bytes: streamBytes };
}

/** The name under which a seed is written. */
export function partialOf(path: string): string {
  return `${path}.partial`;
}

async function manifestOf(files: FileSystem, path: string): Promise<SeedManifest | undefined> {
  try {
    await using seed = await SeedFile.open(files, path);
    return seed.manifest;
  } catch (error) {
    // It is something else, or damaged: not ours to overwrite.
    if (isFailure(error)) return undefined;
    throw error;
  }
}

/**
 * Writes a seed file aside and names it when it is whole and durable. What an interrupted export of the same point has left
 * is used: a medium that is slow to write is read, and written only where the bytes differ. A cancelled export leaves
 * nothing; one whose process was killed leaves `<file>.partial`, which the next process goes on with, or removes (`removePartialSeed`).
 */
export async function writeSeed(
  files: FileSystem,
  path: string,
  stream: AsyncIterable<Uint8Array>,
  o: {
    readonly signed: () => SignedStatement;
    readonly exportedAtMs: number;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<number> {
  const aside = partialOf(path);
  const isThere = (await files.sizeOf(aside)) !== undefined;
  const handle = await files.open(aside, isThere ? 'update' : 'create');
  try {
    const file = new FrugalFile(handle, await handle.sizeBytes());
    const hash = createHash('sha256');
    for await (const chunk of stream) {
      throwIfAborted(o.signal);
      hash.update(chunk);
      await file.append(chunk);
    }
    const streamBytes = file.at;
    const { exportedAtMs } = o;
    await file.append(
      encodeSeedEnd({ signed: o.signed(), streamBytes, streamSha256: hash.digest('hex'), exportedAtMs }),
    );
    await handle.truncate(file.at);
    await handle.sync();
    await handle.close();
    await files.rename(aside, path);
    await files.syncDirectory(dirname(path));
    return file.at;
  } catch (error) {
    await handle.close();
    if (isFailure(error, 'CANCELLED')) await files.remove(aside);
    throw error;
  }
}

/** Bytes that a file has already are not written again. */
class FrugalFile {
  readonly #handle: FileHandle;
  readonly #known: number;
  #twin = Buffer.alloc(0);
  at = 0;

  constructor(handle: FileHandle, known: number) {
    this.#handle = handle;
    this.#known = known;
  }

  async append(chunk: Uint8Array): Promise<void> {
    if (!(await this.#isThere(chunk))) await this.#handle.write(chunk, this.at);
    this.at += chunk.length;
  }

  async #isThere(chunk: Uint8Array): Promise<boolean> {
    if (this.at + chunk.length > this.#known) return false;
    if (this.#twin.length < chunk.length) this.#twin = Buffer.alloc(chunk.length);
    const twin = this.#twin.subarray(0, chunk.length);
    return (await this.#handle.read(twin, this.at)) === chunk.length && twin.equals(chunk);
  }
}

/** The leaves of all disks as the announcement of a seed sends them: for each, its length and its bytes. */
export async function* leavesStream(files: FileSystem, paths: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const path of paths) {
    const handle = await files.open(path, 'read');
    try {
      const sizeBytes = await handle.sizeBytes();
      const head = Buffer.alloc(8);
      head.writeBigUInt64BE(BigInt(sizeBytes));
      yield head;
      for (let at = 0; at < sizeBytes; ) {
        const chunk = Buffer.allocUnsafe(Math.min(256 * 1024, sizeBytes - at));
        const got = await handle.read(chunk, at);
        if (got === 0) throw replicationFailure('REPLICATION_DIGESTS_LOST', `${path} has become shorter`);
        yield chunk.subarray(0, got);
        at += got;
      }
    } finally {
      await handle.close();
    }
  }
}
