import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import Type from 'typebox';
import type { DeltaHeader } from '../delta/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { FileHandle, FileSystem } from '../lib/files.ts';
import { decodeRecord, encodeRecord, recordKind } from '../lib/records.ts';
import { SignedStatement, statementDigest } from '../recovery-point/index.ts';
import { replicaFailure } from './errors.ts';

/** What files of this format are called. */
export const SEED_SUFFIX = '.wsseed';

const TAIL_BYTES = 24;
const MAGIC = Buffer.from([0x89, 0x57, 0x53, 0x46, 0x0d, 0x0a, 0x1a, 0x0a]);
const VERSION = 1;
const MANIFEST_BYTES_MAX = 8 * 1024 * 1024;
const READ_BYTES = 1024 * 1024;

const SeedManifestSchema = Type.Object({
  /** The point that the seed is, as its site signed it; everything in the seed is held against this. */
  signed: SignedStatement,
  /** Length and SHA-256 of the delta stream. They find damage early; what they say is not signed and not relied on. */
  streamBytes: Type.Integer({ minimum: 1 }),
  streamSha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  exportedAtMs: Type.Integer({ minimum: 0 }),
});
/** What a seed says of itself. */
export type SeedManifest = Type.Static<typeof SeedManifestSchema>;
const SEED_MANIFEST = recordKind('seed', 1, SeedManifestSchema);

/** The end of a seed file, behind its stream: the manifest, and a tail by which it is found. */
export function encodeSeedEnd(manifest: SeedManifest): Buffer {
  const body = encodeRecord(SEED_MANIFEST, manifest);
  const tail = Buffer.alloc(TAIL_BYTES);
  MAGIC.copy(tail);
  tail.writeUInt32BE(VERSION, 8);
  tail.writeUInt32BE(body.length, 12);
  tail.writeUInt32BE(crc32(tail.subarray(0, 16), crc32(body)), 16);
  return Buffer.concat([body, tail]);
}

/**
 * A seed file: a complete delta stream, its manifest, its tail (docs/format.md, «Seed»). Nothing of it is believed: the
 * stream is any bytes until it has been decoded, and its content until it has been compared with a signed statement.
 */
export class SeedFile implements AsyncDisposable {
  readonly path: string;
  readonly manifest: SeedManifest;
  readonly #handle: FileHandle;

  private constructor(path: string, manifest: SeedManifest, handle: FileHandle) {
    this.path = path;
    this.manifest = manifest;
    this.#handle = handle;
  }

  /** Throws REPLICA_SEED_DAMAGED for anything that does not end as a seed does, RECORD_NEWER, FILE_UNREADABLE. */
  static async open(files: FileSystem, path: string): Promise<SeedFile> {
    const handle = await files.open(path, 'read');
    try {
      return new SeedFile(path, await readManifest(handle, path), handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  get statement(): SeedManifest['signed']['statement'] {
    return this.manifest.signed.statement;
  }

  get statementDigest(): string {
    return statementDigest(this.statement);
  }

  /** The delta stream; a chunk is not written to again. */
  async *stream(): AsyncGenerator<Buffer> {
    const { streamBytes } = this.manifest;
    for (let at = 0; at < streamBytes; ) {
      const chunk = Buffer.allocUnsafe(Math.min(READ_BYTES, streamBytes - at));
      const got = await this.#handle.read(chunk, at);
      if (got === 0) throw damaged(this.path, `it ends at ${at}`);
      yield chunk.subarray(0, got);
      at += got;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

async function readManifest(handle: FileHandle, path: string): Promise<SeedManifest> {
  const sizeBytes = await handle.sizeBytes();
  const tail = Buffer.alloc(TAIL_BYTES);
  const isWhole = sizeBytes > TAIL_BYTES && (await handle.read(tail, sizeBytes - TAIL_BYTES)) === TAIL_BYTES;
  if (!isWhole || !tail.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw damaged(path, 'it has no end: it was cut off, or is no seed');
  }
  const version = tail.readUInt32BE(8);
  const length = tail.readUInt32BE(12);
  if (version > VERSION) throw damaged(path, `it is of version ${version}, and ${VERSION} is known here`);
  const streamBytes = sizeBytes - TAIL_BYTES - length;
  if (length > MANIFEST_BYTES_MAX || streamBytes <= 0)
    throw damaged(path, 'its manifest does not fit into it');
  const body = Buffer.alloc(length);
  await handle.read(body, streamBytes);
  if (crc32(tail.subarray(0, 16), crc32(body)) !== tail.readUInt32BE(16)) {
    throw damaged(path, 'the checksum of its manifest is wrong');
  }
  const manifest = decodeRecord(SEED_MANIFEST, body, path);
  if (manifest.streamBytes !== streamBytes) {
    throw damaged(path, `its stream has ${streamBytes} bytes, and ${manifest.streamBytes} were written`);
  }
  return manifest;
}

/** A seed whose bytes are not those that were exported. */
export function damaged(path: string, why: string, cause?: unknown): Error {
  return replicaFailure('REPLICA_SEED_DAMAGED', `the seed ${path} is damaged: ${why}`, {
    context: { path, reason: cause === undefined ? why : messageOf(cause) },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The header that the stream of a seed must have: the point of its statement, complete by itself. */
export function seedHeader({
  signed: { statement },
}: Pick<SeedManifest, 'signed'>): Omit<DeltaHeader, 'granularityBytes'> {
  const { machineId, pointId, sequence, epoch, disks, blockBytes } = statement;
  return {
    // The session of an export is its point: the same cut gives the same stream, whenever it is exported.
    ...{ session: pointId, machineId, pointId, sequence, epoch, parent: null, blockBytes },
    disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
    digest: 'sha256',
    firstFrame: 0,
  };
}

/** The seed that a person means: a file, or the only one in a directory. Throws REPLICA_SEED_REFUSED. */
export async function findSeed(files: FileSystem, path: string): Promise<string> {
  const names = await files.list(path).then(
    (listed) => listed,
    // What cannot be listed is a file, or says so when it is opened.
    () => undefined,
  );
  if (names === undefined) return path;
  const seeds = names.filter((name) => name.endsWith(SEED_SUFFIX));
  if (seeds.length === 1) return join(path, seeds[0]!);
  const said =
    seeds.length === 0 ? `there is no ${SEED_SUFFIX} file` : `there are several: ${seeds.join(', ')}`;
  throw replicaFailure('REPLICA_SEED_REFUSED', `${path}: ${said}`, {
    context: { path, seeds: seeds.length },
    hint: 'Name the file of the seed.',
  });
}
