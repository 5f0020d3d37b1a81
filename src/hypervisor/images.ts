import type { Extents } from '../lib/extents.ts';

/** One file of a chain, with its driver named: formats are never probed. */
export interface ImageFile {
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
}

/**
 * Disk images at rest, or at least files that nobody writes: sealed layers of a running machine, layers of a
 * stopped one, layers of a replica.
 *
 * What an implementation must provide:
 * - files are opened exactly as named, each with its driver and its backing file given; headers are never
 *   followed to other files;
 * - what a reader returns is the content of the chain at the moment of `open` or later, provided that no
 *   file of it is written meanwhile;
 * - `commit` may be killed at any instant and repeated: until it has returned, the content of the chain
 *   `[…, base, top]` stays what it was, and after it has returned `[…, base]` alone has that content, durably;
 * - that holds also where an earlier `commit` failed because a sync did. What such a sync was about is clean in the page
 *   cache and not on the device, so that whoever believes the cache finds it done: `commit` reads and writes past it.
 */
export interface DiskImages {
  /**
   * Opens a chain, the oldest file first. With `fromDevice` what is read comes from where the files are stored and neither from nor
   * into the page cache, if their file system can do that: a proof is about what the device holds, and reads everything once.
   * Throws IMAGE_UNREADABLE or a failure of the tool.
   */
  open(chain: readonly ImageFile[], options?: { readonly fromDevice?: boolean }): Promise<ImageReader>;
  /**
   * Writes everything that the last file of a chain holds into the one below it, in place. The chain is given from the oldest
   * file on: what is written in units larger than what changed must be filled up from below. The top itself is left as it is.
   */
  commit(chain: readonly ImageFile[]): Promise<void>;
  /**
   * Writes another backing file into the header of `image`, without looking at content: for an image whose old
   * backing file has been committed into `backing`. Durable on return; may be repeated.
   */
  reparent(image: ImageFile, backing: ImageFile): Promise<void>;
  /**
   * Makes the disk that an image holds larger; what is new reads as zeros. Durable on return; may be repeated. One that is as large
   * already, or larger, stays as it is.
   */
  grow(image: ImageFile, sizeBytes: number): Promise<void>;
}

/** A chain opened for reading. Reads may be issued in parallel. */
export interface ImageReader extends AsyncDisposable {
  /** What the guest sees as the size of the disk. */
  readonly sizeBytes: number;
  /** Fills `target` with the guest-visible bytes from `offset` on. */
  readInto(target: Uint8Array, offset: number): Promise<void>;
  /** The ranges that the youngest `layers` files of the chain hold themselves, by what they read as. */
  ownExtents(layers: number): Promise<ContentExtents>;
  /** The ranges of the whole chain that are not known to be zero. */
  contentExtents(): Promise<ContentExtents>;
  close(): Promise<void>;
}

/** `data` must be read; `zero` reads as zeros and is known to without reading. Disjoint. */
export interface ContentExtents {
  readonly data: Extents;
  readonly zero: Extents;
}
