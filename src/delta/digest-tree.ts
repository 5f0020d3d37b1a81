import { hash } from 'node:crypto';
import { assert } from '../lib/assert.ts';
import { type Extent, type Extents, extentsOf } from '../lib/extents.ts';
import { blockCount, blockLength, DIGEST_BYTES, zeroBlockDigest } from './blocks.ts';
import { BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, DISK_BYTES_MAX, isPowerOfTwo, writeU64 } from './format.ts';

/** Children of an inner node: 2 KiB of digests are hashed at once, and 1 TiB of 64 KiB blocks has 4 levels. */
const FAN_OUT = 64;
const ROOT_DOMAIN = Buffer.from('warmsite.disk-root.1\0');

/** The leaf of one block. */
export interface Leaf {
  readonly index: number;
  readonly digest: Buffer;
}

/** Up to 64 sibling digests. Shared between copies of a tree until its owner writes to it. */
interface Group {
  readonly owner: object;
  readonly digests: Buffer;
}

/** One level of the tree, 0 = leaves. A group that is absent belongs to zero blocks only. */
interface Level {
  readonly count: number;
  /** Digest of a node over whole zero blocks, and of the last node, which may be over fewer. */
  readonly zero: Buffer;
  readonly lastZero: Buffer;
  readonly groups: Map<number, Group>;
  readonly dirty: Set<number>;
}

/**
 * The digest tree of one disk (docs/format.md, «Digest tree»). A new tree is that of a disk of zeros; memory
 * grows with the blocks that are not zero (32 bytes each, in groups of 64); `root` hashes only the paths that
 * changed since the last call.
 */
export class DigestTree {
  readonly #blockBytes: number;
  #sizeBytes: number;
  #levels: Level[];
  #owner: object = {};
  /** A block whose length changed with the disk's size and whose leaf has not been set again. */
  #stale: number | undefined;

  /** Sizes must lie within the limits of the format; outside bytes are checked before they get here. */
  constructor(options: { readonly sizeBytes: number; readonly blockBytes: number }) {
    const { sizeBytes, blockBytes } = options;
    assert(isPowerOfTwo(blockBytes, BLOCK_BYTES_MIN, BLOCK_BYTES_MAX), `block size ${blockBytes}`);
    this.#blockBytes = blockBytes;
    this.#sizeBytes = sizeBytes;
    this.#levels = emptyLevels(sizeBytes, blockBytes);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get blockBytes(): number {
    return this.#blockBytes;
  }

  get blockCount(): number {
    return this.#levels[0]!.count;
  }

  /** Takes the leaf of block `index`; the digest is copied. */
  set(index: number, digest: Uint8Array): void {
    assert(digest.length === DIGEST_BYTES, 'a leaf has 32 bytes');
    this.#assertIndex(index);
    if (index === this.#stale) this.#stale = undefined;
    this.#write(0, index, digest);
  }

  /** A copy of the leaf of block `index`. */
  get(index: number): Buffer {
    this.#assertIndex(index);
    return Buffer.from(digestAt(this.#levels[0]!, index));
  }

  /** The root over size, block size and all leaves. */
  root(): Buffer {
    assert(this.#stale === undefined, `block ${this.#stale} changed its length and needs a new leaf`);
    for (let depth = 0; depth + 1 < this.#levels.length; depth++) this.#hashDirty(depth);
    const top = digestAt(this.#levels.at(-1)!, 0);
    const sizes = Buffer.alloc(12);
    writeU64(sizes, this.#sizeBytes, 0);
    sizes.writeUInt32BE(this.#blockBytes, 8);
    return hash('sha256', Buffer.concat([ROOT_DOMAIN, sizes, top]), 'buffer');
  }

  /** An independent tree of equal content; memory is shared until either changes. */
  copy(): DigestTree {
    const twin = new DigestTree({ sizeBytes: this.#sizeBytes, blockBytes: this.#blockBytes });
    twin.#levels = this.#levels.map((level) => ({
      ...level,
      groups: new Map(level.groups),
      dirty: new Set(level.dirty),
    }));
    twin.#stale = this.#stale;
    // From here on neither owns the groups of before.
    this.#owner = {};
    return twin;
  }

  /**
   * Gives the disk another size; new blocks are zero, blocks beyond the end are forgotten. A block that was not
   * zero and became longer or shorter has an unknown leaf: its index is returned, and it must be `set` before
   * the next `root`.
   */
  resize(sizeBytes: number): number | undefined {
    const before = this.#sizeBytes;
    if (sizeBytes === before) return this.#stale;
    const kept = [...this.nonZeroLeaves()];
    const border = blockCount(Math.min(before, sizeBytes), this.#blockBytes) - 1;
    const changedLength =
      blockLength(before, this.#blockBytes, border) !== blockLength(sizeBytes, this.#blockBytes, border);
    if (this.#stale !== undefined && this.#stale > border) this.#stale = undefined;
    this.#sizeBytes = sizeBytes;
    this.#levels = emptyLevels(sizeBytes, this.#blockBytes);
    for (const { index, digest } of kept) {
      if (index > border) break;
      if (index === border && changedLength) this.#stale = border;
      else this.#write(0, index, digest);
    }
    return this.#stale;
  }

  /** The leaves of the blocks that are not zero, ascending. The tree must not change meanwhile. */
  *nonZeroLeaves(): Generator<Leaf> {
    const level = this.#levels[0]!;
    for (const number of [...level.groups.keys()].sort((a, b) => a - b)) {
      const { digests } = level.groups.get(number)!;
      const first = number * FAN_OUT;
      const end = Math.min(first + FAN_OUT, level.count);
      for (let index = first; index < end; index++) {
        const at = (index - first) * DIGEST_BYTES;
        const digest = digests.subarray(at, at + DIGEST_BYTES);
        if (!digest.equals(zeroAt(level, index))) yield { index, digest: Buffer.from(digest) };
      }
    }
  }

  /** What of this disk, in whole blocks, reads otherwise than a disk with another tree, beyond whose end all is zero. */
  differenceFrom(older: DigestTree): Extents {
    assert(older.#blockBytes === this.#blockBytes, 'trees of one block size are compared');
    const [now, before] = [this.#levels[0]!, older.#levels[0]!];
    const differing: Extent[] = [];
    for (const number of [...new Set([...now.groups.keys(), ...before.groups.keys()])].sort(
      (a, b) => a - b,
    )) {
      const [digests, others] = [now.groups.get(number)?.digests, before.groups.get(number)?.digests];
      if (digests && others && digests.equals(others)) continue;
      const end = Math.min((number + 1) * FAN_OUT, now.count);
      for (let index = number * FAN_OUT; index < end; index++) {
        const other = index < before.count ? digestAt(before, index) : zeroAt(now, index);
        if (digestAt(now, index).equals(other)) continue;
        const length = blockLength(this.#sizeBytes, this.#blockBytes, index);
        differing.push({ offset: index * this.#blockBytes, length });
      }
    }
    return extentsOf(differing);
  }

  #assertIndex(index: number): void {
    assert(
      Number.isInteger(index) && index >= 0 && index < this.blockCount,
      `there is no block ${index} among ${this.blockCount}`,
    );
  }

  #write(depth: number, index: number, digest: Uint8Array): void {
    const level = this.#levels[depth]!;
    if (digestAt(level, index).equals(digest)) return;
    const number = Math.floor(index / FAN_OUT);
    this.#ownGroup(level, number).digests.set(digest, (index % FAN_OUT) * DIGEST_BYTES);
    level.dirty.add(number);
  }

  #ownGroup(level: Level, number: number): Group {
    const present = level.groups.get(number);
    if (present?.owner === this.#owner) return present;
    const digests = present ? Buffer.from(present.digests) : zeroGroup(level, number);
    const group = { owner: this.#owner, digests };
    level.groups.set(number, group);
    return group;
  }

  /** Hashes the changed groups of a level into the level above and drops those that became all zero. */
  #hashDirty(depth: number): void {
    const level = this.#levels[depth]!;
    const above = this.#levels[depth + 1]!;
    for (const number of level.dirty) {
      const digest = hash('sha256', level.groups.get(number)!.digests, 'buffer');
      if (digest.equals(zeroAt(above, number))) level.groups.delete(number);
      this.#write(depth + 1, number, digest);
    }
    level.dirty.clear();
  }
}

function emptyLevels(sizeBytes: number, blockBytes: number): Level[] {
  assert(
    Number.isSafeInteger(sizeBytes) && sizeBytes >= 1 && sizeBytes <= DISK_BYTES_MAX,
    `disk size ${sizeBytes}`,
  );
  const count = blockCount(sizeBytes, blockBytes);
  let level = newLevel(
    count,
    zeroBlockDigest(blockBytes),
    zeroBlockDigest(blockLength(sizeBytes, blockBytes, count - 1)),
  );
  const levels = [level];
  while (level.count > 1) {
    const above = Math.ceil(level.count / FAN_OUT);
    const whole = Buffer.concat(new Array<Buffer>(FAN_OUT).fill(level.zero));
    level = newLevel(
      above,
      hash('sha256', whole, 'buffer'),
      hash('sha256', zeroGroup(level, above - 1), 'buffer'),
    );
    levels.push(level);
  }
  return levels;
}

function newLevel(count: number, zero: Buffer, lastZero: Buffer): Level {
  return { count, zero, lastZero, groups: new Map(), dirty: new Set() };
}

function zeroAt(level: Level, index: number): Buffer {
  return index === level.count - 1 ? level.lastZero : level.zero;
}

function zeroGroup(level: Level, number: number): Buffer {
  const first = number * FAN_OUT;
  const length = Math.min(FAN_OUT, level.count - first);
  return Buffer.concat(Array.from({ length }, (_, i) => zeroAt(level, first + i)));
}

function digestAt(level: Level, index: number): Buffer {
  const group = level.groups.get(Math.floor(index / FAN_OUT));
  const at = (index % FAN_OUT) * DIGEST_BYTES;
  return group ? group.digests.subarray(at, at + DIGEST_BYTES) : zeroAt(level, index);
}
