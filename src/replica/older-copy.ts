import {
  blockDigest,
  DATA_FRAME_BYTES_MAX,
  type DeltaHeader,
  DIGEST_BYTES,
  isAllZero,
} from '../delta/index.ts';
import type { DiskImages, ImageFile, ImageReader } from '../hypervisor/index.ts';
import { messageOf } from '../lib/errors.ts';
import { alignOutward, type Extents, intersectionOf, NO_EXTENTS, piecesOf } from '../lib/extents.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import { Mutex } from '../lib/mutex.ts';
import { readHeader, readVirtualSize } from '../qcow2/index.ts';
import { readAhead } from './content.ts';
import { replicaFailure } from './errors.ts';

/** A file that somebody says is an older copy of a disk. */
export interface OlderFile extends ImageFile {
  readonly diskId: string;
  /** The files that it lies upon, the oldest first; absent: it is whole. */
  readonly below?: readonly ImageFile[];
}

/** Blocks of one disk, of which digests are asked for. */
export interface DigestPage {
  readonly diskId: string;
  readonly firstBlock: number;
  readonly blocks: number;
}

/** The most that one page may name: 32 MiB of a disk are read for it. */
export const DIGEST_PAGE_BLOCKS = 512;

interface OlderTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly log: Log;
  /** The file of a disk does not hold what it was just said to hold: it is not to be offered again. Durable on return. */
  readonly onUnfit: (diskId: string, reason: string) => Promise<void>;
}

/**
 * Older copies of the disks of a machine, which spare the wire what has not changed since. Nothing that is read from them is
 * believed: the sender compares digests that are computed when it asks, a block counts only if the very bytes that go into the
 * layer make the sender's leaf, and the finished base is read back and compared with the signed roots like any other.
 *
 * The files are only read. They are opened when they are needed and let go of by `close`, and may be needed again.
 */
export class OlderDisks implements AsyncDisposable {
  readonly #tools: OlderTools;
  readonly #header: DeltaHeader;
  readonly #files: Map<string, OlderFile>;
  readonly #open = new Map<string, Promise<OpenCopy>>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #paging = new Mutex();

  /** Of the disks that the header has; the others' files say nothing. */
  constructor(tools: OlderTools, header: DeltaHeader, files: readonly OlderFile[]) {
    this.#tools = tools;
    this.#header = header;
    const known = new Set(header.disks.map(({ diskId }) => diskId));
    this.#files = new Map(files.filter(({ diskId }) => known.has(diskId)).map((file) => [file.diskId, file]));
  }

  get diskIds(): string[] {
    return [...this.#files.keys()];
  }

  /**
   * The leaves of these blocks as they are now, 32 bytes each; 32 zero bytes for a block that the file does not have, or that
   * is zero there. Throws REPLICA_OLDER_COPY_CHANGED for what cannot be read, and for blocks that the disk does not have.
   */
  digests(page: DigestPage): Promise<Buffer> {
    const { diskId } = page;
    return this.#working(async () => {
      try {
        // One after the other: a page needs 4 MiB of memory while it is read.
        return await this.#paging.run(async () => this.#digests(page, await this.#opened(diskId)));
      } catch (error) {
        // The peer learns that, and nothing of this host. The next page may be readable.
        this.#tools.log.warn('older-copy.unread', { ...page, reason: messageOf(error) });
        throw changed(diskId, 'it cannot be read here');
      }
    });
  }

  async #digests({ diskId, firstBlock, blocks }: DigestPage, copy: OpenCopy): Promise<Buffer> {
    const { blockBytes } = this.#header;
    const offset = firstBlock * blockBytes;
    if (blocks > DIGEST_PAGE_BLOCKS || offset >= this.#sizeOf(diskId))
      throw changed(diskId, 'the disk has no such blocks');
    const leaves = Buffer.alloc(blocks * DIGEST_BYTES);
    const here = intersectionOf(copy.data, [{ offset, length: blocks * blockBytes }]);
    for await (const { piece, data } of readAhead(copy.reader, piecesOf(here, DATA_FRAME_BYTES_MAX))) {
      for (let at = 0; at < data.length; at += blockBytes) {
        const block = data.subarray(at, at + blockBytes);
        const index = (piece.offset + at) / blockBytes - firstBlock;
        if (!isAllZero(block)) leaves.set(blockDigest(block), index * DIGEST_BYTES);
      }
    }
    return leaves;
  }

  /**
   * Fills `target`, whole blocks, with what the file holds from `offset` on. Throws REPLICA_OLDER_COPY_CHANGED unless that makes
   * these leaves; the file is not used any more then.
   */
  take(diskId: string, offset: number, target: Buffer, leaves: Buffer): Promise<void> {
    return this.#working(async () => {
      const reason = await this.#differs(diskId, offset, target, leaves);
      if (reason === undefined) return;
      if (this.#files.delete(diskId)) await this.#tools.onUnfit(diskId, reason);
      throw changed(diskId, 'it does not hold any more what it was said to hold');
    });
  }

  async #differs(
    diskId: string,
    offset: number,
    target: Buffer,
    leaves: Buffer,
  ): Promise<string | undefined> {
    const { blockBytes } = this.#header;
    try {
      const { reader } = await this.#opened(diskId);
      await reader.readInto(target, offset);
    } catch (error) {
      return messageOf(error);
    }
    for (let at = 0, leaf = 0; at < target.length; at += blockBytes, leaf += DIGEST_BYTES) {
      const digest = blockDigest(target.subarray(at, at + blockBytes));
      if (!digest.equals(leaves.subarray(leaf, leaf + DIGEST_BYTES)))
        return `it was written at ${offset + at} while it was read`;
    }
    return undefined;
  }

  async #working<T>(work: () => Promise<T>): Promise<T> {
    const working = work();
    const ended = working.then(
      () => undefined,
      () => undefined,
    );
    this.#underWay.add(ended);
    try {
      return await working;
    } finally {
      this.#underWay.delete(ended);
    }
  }

  #opened(diskId: string): Promise<OpenCopy> {
    const file = this.#files.get(diskId);
    if (!file) return Promise.reject(changed(diskId, 'there is none, or not any more'));
    const known = this.#open.get(diskId);
    if (known) return known;
    const opening = openCopy(this.#tools, file, this.#sizeOf(diskId), this.#header.blockBytes);
    this.#open.set(diskId, opening);
    return opening;
  }

  /** Files are kept of disks that the header has. */
  #sizeOf(diskId: string): number {
    return this.#header.disks.find((disk) => disk.diskId === diskId)!.sizeBytes;
  }

  /** Lets go of the files when what is being read of them has been. */
  async close(): Promise<void> {
    await Promise.all(this.#underWay);
    const opened = [...this.#open.values()];
    this.#open.clear();
    for (const opening of opened) {
      // One that could not be opened has said so to whoever wanted to read it.
      const copy = await opening.catch(() => undefined);
      await copy?.reader.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

interface OpenCopy {
  readonly reader: ImageReader;
  /** Blocks of the disk that are whole in the file and not known to be zero. */
  readonly data: Extents;
}

async function openCopy(
  { files, images }: OlderTools,
  file: OlderFile,
  sizeBytes: number,
  blockBytes: number,
): Promise<OpenCopy> {
  const { path, format, below } = file;
  if (!below) await checkOlderFile(files, file);
  const reader = await images.open([...(below ?? []), { path, format }]);
  try {
    const { data } = await reader.contentExtents();
    // The last block of the disk may be short; the last one of a shorter file is none.
    const isLonger = reader.sizeBytes >= sizeBytes;
    const endBytes = isLonger ? sizeBytes : Math.floor(reader.sizeBytes / blockBytes) * blockBytes;
    const whole = endBytes > 0 ? intersectionOf(data, [{ offset: 0, length: endBytes }]) : NO_EXTENTS;
    return { reader, data: alignOutward(whole, blockBytes, endBytes) };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

/**
 * Throws REPLICA_OLDER_COPY_UNFIT for a file in which nothing would be found: a qcow2 image that is called raw, one with a
 * backing file, which would not be followed. Throws what `readHeader` throws of an image that is not opened at all.
 */
async function checkOlderFile(files: FileSystem, { path, format }: ImageFile): Promise<void> {
  if (format === 'raw') {
    if ((await readVirtualSize(files, path)) === undefined) return;
    throw unfit(path, 'is a qcow2 image', `Say so: ID=${path}:qcow2.`);
  }
  const { backing } = await readHeader(files, path, { allowVersion2: true });
  if (backing === null) return;
  throw unfit(
    path,
    `lies upon another file, ${backing.name}`,
    'Make it whole first: `qemu-img convert -O qcow2`.',
  );
}

/** The same, and whatever hinders opening it: it may be locked by a machine that runs on it. */
export async function tryOlderFile(
  { files, images }: Pick<OlderTools, 'files' | 'images'>,
  { path, format }: ImageFile,
): Promise<void> {
  await checkOlderFile(files, { path, format });
  const reader = await images.open([{ path, format }]);
  await reader.close();
}

function unfit(path: string, why: string, hint: string): Error {
  return replicaFailure('REPLICA_OLDER_COPY_UNFIT', `${path} ${why}`, { context: { path }, hint });
}

function changed(diskId: string, why: string): Error {
  return olderCopyChanged(`the older copy of ${diskId} is not used: ${why}`);
}

/** What a sender is told that is to go on, with the older copies that there are then. */
export function olderCopyChanged(said: string): Error {
  return replicaFailure('REPLICA_OLDER_COPY_CHANGED', said);
}
