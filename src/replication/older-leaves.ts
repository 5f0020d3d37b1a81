import { blockCount, type DeltaHeader, DIGEST_BYTES } from '../delta/index.ts';
import type { Extent } from '../lib/extents.ts';
import { DIGEST_PAGE_BLOCKS, type DigestPage } from '../replica/index.ts';
import type { ReplicationTarget } from './target.ts';

/** Pages that fail one after the other before the copy is given up. */
const FAILURES_MAX = 4;

/**
 * The leaves of an older copy that a target has of one disk, asked for page by page as the disk is gone through from front to
 * back: two pages are in memory, however large it is. What cannot be had is not known, and crosses the wire.
 */
export class OlderLeaves {
  readonly #ask: (page: DigestPage) => Promise<Uint8Array>;
  readonly #disk: { readonly diskId: string; readonly sizeBytes: number };
  readonly #blockBytes: number;
  readonly #pages = new Map<number, Promise<Uint8Array | undefined>>();
  #failures = 0;

  constructor(o: {
    ask: (page: DigestPage) => Promise<Uint8Array>;
    disk: { readonly diskId: string; readonly sizeBytes: number };
    blockBytes: number;
  }) {
    this.#ask = o.ask;
    this.#disk = o.disk;
    this.#blockBytes = o.blockBytes;
  }

  /** Of a piece, at most 1 MiB on borders of 1 MiB: says whether the older copy has a block of it with that digest. */
  async of(piece: Extent): Promise<(index: number, digest: Uint8Array) => boolean> {
    const first = piece.offset / this.#blockBytes;
    const number = Math.floor(first / DIGEST_PAGE_BLOCKS);
    for (const old of this.#pages.keys()) if (old < number) this.#pages.delete(old);
    const asked = this.#page(number);
    // The next one is on its way while this one is gone through.
    void this.#page(number + 1);
    const page = await asked;
    return (index, digest) => {
      const at = (index - number * DIGEST_PAGE_BLOCKS) * DIGEST_BYTES;
      return page !== undefined && Buffer.compare(page.subarray(at, at + DIGEST_BYTES), digest) === 0;
    };
  }

  #page(number: number): Promise<Uint8Array | undefined> {
    const known = this.#pages.get(number);
    if (known) return known;
    const page = this.#fetch(number);
    this.#pages.set(number, page);
    return page;
  }

  async #fetch(number: number): Promise<Uint8Array | undefined> {
    const { diskId, sizeBytes } = this.#disk;
    const firstBlock = number * DIGEST_PAGE_BLOCKS;
    const blocks = Math.min(DIGEST_PAGE_BLOCKS, blockCount(sizeBytes, this.#blockBytes) - firstBlock);
    if (blocks <= 0 || this.#failures >= FAILURES_MAX) return undefined;
    try {
      const leaves = await this.#ask({ diskId, firstBlock, blocks });
      this.#failures = 0;
      return leaves.length === blocks * DIGEST_BYTES ? leaves : undefined;
    } catch {
      // The other site has noted why; a connection that is gone ends the stream by itself.
      this.#failures += 1;
      return undefined;
    }
  }
}

/** The leaves of what a target has said it has; undefined if it has nothing, or does not know of older copies. */
export function olderOf(
  target: ReplicationTarget,
  { session, disks, blockBytes, parent }: DeltaHeader,
  diskIds: unknown,
  signal?: AbortSignal,
): ReadonlyMap<string, OlderLeaves> | undefined {
  const offered: readonly unknown[] = parent === null && Array.isArray(diskIds) ? diskIds : [];
  const named = disks.filter(({ diskId }) => offered.includes(diskId));
  if (named.length === 0 || !target.olderLeaves) return undefined;
  const ask = (page: DigestPage): Promise<Uint8Array> =>
    target.olderLeaves?.(session, page, signal) ?? Promise.resolve(new Uint8Array());
  return new Map(named.map((disk) => [disk.diskId, new OlderLeaves({ ask, disk, blockBytes })]));
}
