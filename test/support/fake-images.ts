import type { ContentExtents, DiskImages, ImageFile, ImageReader } from '../../src/hypervisor/index.ts';
import { HYPERVISOR_ERRORS } from '../../src/hypervisor/index.ts';
import { Failure, isFailure, messageOf } from '../../src/lib/errors.ts';
import { differenceOf, type Extents, extentsOf, unionOf } from '../../src/lib/extents.ts';
import type { FileSystem } from '../../src/lib/files.ts';
import { ChainReader, type LayerReader, openLayer } from './qcow2-reader.ts';
import { openWritable, writeBackingName } from './writable-image.ts';

/** The locks that QEMU's programs hold on image files: many readers, or one writer. */
export class ImageLocks {
  readonly #held = new Map<string, { owner: object; parent: object; writes: boolean }[]>();

  /** Returns the function that lets go; throws what QEMU says. `parent` is whose end also ends the owner. */
  take(owner: object, path: string, writes: boolean, parent: object = owner): () => void {
    const held = this.#held.get(path) ?? [];
    if (held.some((lock) => lock.owner !== owner && (writes || lock.writes))) {
      throw new Error(`Failed to get ${writes ? '"write"' : 'shared "write"'} lock on ${path}`);
    }
    const lock = { owner, parent, writes };
    this.#held.set(path, [...held, lock]);
    return () =>
      this.#held.set(
        path,
        (this.#held.get(path) ?? []).filter((other) => other !== lock),
      );
  }

  /** The owner's process has ended. */
  releaseAll(owner: object): void {
    for (const [path, held] of this.#held) {
      this.#held.set(
        path,
        held.filter((lock) => lock.owner !== owner && lock.parent !== owner),
      );
    }
  }
}

/**
 * `DiskImages` without QEMU, on any `FileSystem`: reads through the tests' own qcow2 reader, commits in place in the
 * order in which QEMU does.
 */
export class FakeImages implements DiskImages {
  readonly #files: FileSystem;
  readonly #locks: ImageLocks;
  /** Stands for the process that has the images open. */
  readonly #owner: object;
  readonly #dropCache: (path: string) => void;

  /** `dropCache` lets the next reads of a file come from the disk, where there is a cache before it. */
  constructor(o: {
    files: FileSystem;
    locks: ImageLocks;
    owner?: object;
    dropCache?: (path: string) => void;
  }) {
    this.#files = o.files;
    this.#locks = o.locks;
    this.#owner = o.owner ?? this;
    this.#dropCache = o.dropCache ?? (() => undefined);
  }

  async open(
    chain: readonly ImageFile[],
    options: { readonly fromDevice?: boolean } = {},
  ): Promise<ImageReader> {
    const releases: (() => void)[] = [];
    try {
      if (options.fromDevice) for (const { path } of chain) this.#dropCache(path);
      // Each reader is a process of its own.
      const reader = {};
      for (const { path } of chain) releases.push(this.#locks.take(reader, path, false, this.#owner));
      return new FakeImageReader(await openFiles(this.#files, chain), () => {
        for (const release of releases) release();
      });
    } catch (error) {
      for (const release of releases) release();
      if (isFailure(error) && error.code !== 'FILE_UNREADABLE') throw error;
      const path = chain.at(-1)?.path ?? '';
      throw imageFailure('IMAGE_UNREADABLE', `cannot open ${path}: ${messageOf(error)}`, error);
    }
  }

  async commit(chain: readonly ImageFile[]): Promise<void> {
    const [base, top] = chain.slice(-2) as [ImageFile, ImageFile];
    const owner = {};
    const releases: (() => void)[] = [];
    try {
      releases.push(this.#locks.take(owner, base.path, true, this.#owner));
      releases.push(this.#locks.take(owner, top.path, true, this.#owner));
      for (const { path } of [base, top]) this.#dropCache(path);
      await commitFiles(this.#files, chain);
    } catch (error) {
      throw imageFailure('COMMIT_FAILED', `cannot commit ${top.path}: ${messageOf(error)}`, error);
    } finally {
      for (const release of releases) release();
    }
  }

  async grow(image: ImageFile, sizeBytes: number): Promise<void> {
    const release = this.#locks.take({}, image.path, true, this.#owner);
    try {
      await using opened = await openWritable(this.#files, image);
      if (opened.sizeBytes < sizeBytes) await opened.grow(sizeBytes);
    } finally {
      release();
    }
  }

  async reparent(image: ImageFile, backing: ImageFile): Promise<void> {
    const release = this.#locks.take({}, image.path, true, this.#owner);
    try {
      await writeBackingName(this.#files, image.path, backing);
    } finally {
      release();
    }
  }
}

/** Copies what `top` holds into `base`, a cluster at a time, durably at its end. `between` is called after each. */
export async function commitLayer(
  files: FileSystem,
  base: ImageFile,
  top: ImageFile,
  between: () => Promise<void> = async () => undefined,
): Promise<void> {
  await using layer = await openLayer(files, top.path, { leaks: 'allowed' });
  await using target = await openWritable(files, base);
  if (layer.sizeBytes > target.sizeBytes) await target.grow(layer.sizeBytes);
  for (const { kind, offset, length } of layer.map()) {
    for (let at = offset; at < offset + length; ) {
      const part = Math.min(65_536 - (at % 65_536), offset + length - at);
      if (kind === 'data') {
        const bytes = Buffer.alloc(part);
        await layer.readOwn(bytes, at);
        await target.write(at, bytes);
      } else {
        await target.zero(at, part);
      }
      at += part;
      await between();
    }
  }
  await target.sync();
}

/** `qemu-img commit` copies in units of this size, and takes what it fills them up with from the chain that it was given. */
const UNIT_BYTES = 65_536;

async function commitFiles(files: FileSystem, chain: readonly ImageFile[]): Promise<void> {
  const [base, top] = chain.slice(-2) as [ImageFile, ImageFile];
  await using layer = await openLayer(files, top.path, { leaks: 'allowed' });
  const { reader } = await openFiles(files, chain);
  await using _closed = reader;
  await using target = await openWritable(files, base);
  if (layer.sizeBytes > target.sizeBytes) await target.grow(layer.sizeBytes);
  for (const { kind, offset, length } of layer.map()) {
    if (kind === 'zero') {
      await target.zero(offset, length);
      continue;
    }
    const end = Math.min(Math.ceil((offset + length) / UNIT_BYTES) * UNIT_BYTES, reader.sizeBytes);
    for (let at = Math.floor(offset / UNIT_BYTES) * UNIT_BYTES; at < end; at += UNIT_BYTES) {
      await target.write(at, await reader.read(at, Math.min(UNIT_BYTES, end - at)));
    }
  }
  await target.sync();
}

/** Exactly the files named, the oldest first; their headers are not asked what lies below. */
export async function openFiles(files: FileSystem, chain: readonly ImageFile[]): Promise<OpenedFiles> {
  const opened: AsyncDisposable[] = [];
  try {
    const layers: LayerReader[] = [];
    for (const { path } of chain.filter(({ format }) => format === 'qcow2')) {
      const layer = await openLayer(files, path, { leaks: 'allowed' });
      opened.push(layer);
      layers.unshift(layer);
    }
    const [raw] = chain.filter(({ format }) => format === 'raw');
    if (!raw) return { reader: new ChainReader(layers, null), rawBytes: undefined };
    const file = await files.open(raw.path, 'read');
    opened.push({ [Symbol.asyncDispose]: () => file.close() });
    const sizeBytes = await file.sizeBytes();
    return { reader: new ChainReader(layers, { path: raw.path, file, sizeBytes }), rawBytes: sizeBytes };
  } catch (error) {
    for (const one of opened) await one[Symbol.asyncDispose]();
    throw error;
  }
}

export interface OpenedFiles {
  readonly reader: ChainReader;
  /** Size of the raw file at the bottom, if there is one. */
  readonly rawBytes: number | undefined;
}

class FakeImageReader implements ImageReader {
  readonly sizeBytes: number;
  readonly #reader: ChainReader;
  readonly #rawBytes: number | undefined;
  readonly #onClose: () => void;

  constructor({ reader, rawBytes }: OpenedFiles, onClose: () => void) {
    this.#reader = reader;
    this.#rawBytes = rawBytes;
    this.#onClose = onClose;
    this.sizeBytes = reader.sizeBytes;
  }

  async readInto(target: Uint8Array, offset: number): Promise<void> {
    target.set(await this.#reader.read(offset, target.length));
  }

  async ownExtents(layers: number): Promise<ContentExtents> {
    let data: Extents = [];
    let zero: Extents = [];
    const maps = this.#reader.layers.slice(0, layers).map((layer) => layer.map());
    if (layers > maps.length && this.#rawBytes !== undefined) data = [{ offset: 0, length: this.#rawBytes }];
    for (const map of maps.reverse()) {
      const ownData = extentsOf(map.filter(({ kind }) => kind === 'data'));
      const ownZero = extentsOf(map.filter(({ kind }) => kind === 'zero'));
      data = unionOf(differenceOf(data, ownZero), ownData);
      zero = unionOf(differenceOf(zero, ownData), ownZero);
    }
    return { data, zero };
  }

  async contentExtents(): Promise<ContentExtents> {
    const { data } = await this.ownExtents(Number.POSITIVE_INFINITY);
    return { data, zero: differenceOf([{ offset: 0, length: this.sizeBytes }], data) };
  }

  async close(): Promise<void> {
    this.#onClose();
    await this.#reader[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function imageFailure(code: 'IMAGE_UNREADABLE' | 'COMMIT_FAILED', message: string, cause: unknown): Failure {
  return new Failure(code, HYPERVISOR_ERRORS[code], message, { cause });
}
