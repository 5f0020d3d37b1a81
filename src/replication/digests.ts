import { join } from 'node:path';
import {
  applyLeaves,
  type DigestTree,
  inheritedBlocks,
  type LayerLeaves,
  leavesIn,
  mergeLeaves,
  readLeaves,
  treeOfLayers,
  writeLeaves,
} from '../delta/index.ts';
import { isFailure } from '../lib/errors.ts';
import { alignOutward, type Extents } from '../lib/extents.ts';
import type { FileSystem } from '../lib/files.ts';
import { replicationFailure } from './errors.ts';

/** So many files are read at a start at the most; then they are merged into one. */
const FILES_MAX = 64;

/**
 * The digests of every disk as of the newest acknowledged point, kept beside the chain so that a restart reads a few
 * small files and not the disks. One file for each acknowledged point, named by its sequence number; the older ones are
 * merged now and then, which costs in proportion to what has changed.
 */
export class DigestStore {
  readonly #files: FileSystem;
  /** Has a directory for each disk. */
  readonly #directory: string;

  constructor(files: FileSystem, directory: string) {
    this.#files = files;
    this.#directory = directory;
  }

  /** Durable on return. Written before the acknowledgement is recorded; a file without one is written over. */
  async save(
    diskId: string,
    sequence: number,
    tree: DigestTree,
    older: DigestTree | undefined,
    changed: Extents,
  ) {
    await this.#files.makeDirectory(join(this.#directory, diskId));
    const aligned = alignOutward(changed, tree.blockBytes, tree.sizeBytes);
    await writeLeaves(this.#files, this.path(diskId, sequence), {
      sizeBytes: tree.sizeBytes,
      blockBytes: tree.blockBytes,
      inheritedBlocks: inheritedBlocks(older?.sizeBytes ?? null, tree.sizeBytes, tree.blockBytes),
      leaves: leavesIn(tree, aligned),
    });
    await this.#tidy(diskId, sequence);
  }

  /** The tree of a disk at the point with that sequence number. REPLICATION_DIGESTS_LOST if files are missing or damaged. */
  async load(diskId: string, sequence: number): Promise<DigestTree> {
    const layers: LayerLeaves[] = [];
    try {
      const known = (await this.#sequences(diskId)).filter((candidate) => candidate <= sequence);
      if (known.at(-1) !== sequence) throw lost(diskId, `there is no file for point ${sequence}`);
      for (const one of known) layers.push(await readLeaves(this.#files, this.path(diskId, one)));
    } catch (error) {
      if (isFailure(error, 'DELTA_LEAVES_CORRUPT', 'FILE_UNREADABLE')) throw lost(diskId, error.message);
      throw error;
    }
    const [oldest, ...younger] = layers;
    if (oldest?.inheritedBlocks !== 0) throw lost(diskId, 'the oldest file is not complete');
    const tree = treeOfLayers([oldest]);
    for (const layer of younger) applyLeaves(tree, layer);
    return tree;
  }

  /** Merges the files into the one of `sequence` when there are many; the older ones go afterwards. */
  async #tidy(diskId: string, sequence: number): Promise<void> {
    const known = (await this.#sequences(diskId)).filter((candidate) => candidate <= sequence);
    if (known.length <= FILES_MAX) return;
    let merged: LayerLeaves | undefined;
    for (const one of known) {
      const layer = await readLeaves(this.#files, this.path(diskId, one));
      merged = merged ? mergeLeaves(merged, layer) : layer;
    }
    await writeLeaves(this.#files, this.path(diskId, sequence), merged!);
    for (const one of known) if (one !== sequence) await this.#files.remove(this.path(diskId, one));
  }

  async remove(diskId: string): Promise<void> {
    await this.#files.removeDirectory(join(this.#directory, diskId));
  }

  async #sequences(diskId: string): Promise<number[]> {
    const names = (await this.#files.list(join(this.#directory, diskId))) ?? [];
    return names
      .filter((name) => /^\d{16}\.leaves$/.test(name))
      .map((name) => Number.parseInt(name, 10))
      .sort((a, b) => a - b);
  }

  /** The file with what changed up to the point with that sequence number; the first one is complete. */
  path(diskId: string, sequence: number): string {
    return join(this.#directory, diskId, `${String(sequence).padStart(16, '0')}.leaves`);
  }
}

function lost(diskId: string, why: string) {
  return replicationFailure('REPLICATION_DIGESTS_LOST', `the digests of ${diskId} cannot be used: ${why}`, {
    context: { diskId },
  });
}
