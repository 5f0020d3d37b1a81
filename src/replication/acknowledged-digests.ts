import { type DigestTree, endBlock } from '../delta/index.ts';
import { isFailure } from '../lib/errors.ts';
import { type Extents, NO_EXTENTS } from '../lib/extents.ts';
import { chainAt, chainUpTo, isThereAt } from './chain.ts';
import type { Delivered } from './delivery.ts';
import { rebuildTree } from './delta-source.ts';
import { DigestStore } from './digests.ts';
import type { ChainTools } from './protected-chain.ts';
import type { CutRecord, ProtectedDisk, TargetRecord } from './records.ts';
import type { SentDelta } from './send-session.ts';

/** The digests of all disks of a machine as one target has acknowledged them; read anew from the disks where they are lost. */
export class AcknowledgedDigests {
  readonly #tools: ChainTools;
  readonly #store: DigestStore;
  readonly #machine: () => Delivered;
  /** Those of one point; another one may be the acknowledged one by the record, because storing that failed. */
  #known: { readonly sequence: number; readonly trees: ReadonlyMap<string, DigestTree> } | undefined;

  constructor(tools: ChainTools, directory: string, machine: () => Delivered) {
    this.#tools = tools;
    this.#store = new DigestStore(tools.files, directory);
    this.#machine = machine;
  }

  /** The file of a disk with what changed up to the point with that sequence number. */
  path(diskId: string, sequence: number): string {
    return this.#store.path(diskId, sequence);
  }

  /** Durable on return; to be recorded as acknowledged afterwards. */
  async save(sequence: number, sent: Pick<SentDelta, 'trees' | 'changed'>): Promise<void> {
    const before = this.#known && this.#known.sequence < sequence ? this.#known.trees : undefined;
    for (const [diskId, tree] of sent.trees) {
      const older = before?.get(diskId);
      await this.#store.save(diskId, sequence, tree, older, sent.changed.get(diskId) ?? NO_EXTENTS);
    }
    this.#known = { sequence, trees: sent.trees };
  }

  /** What a delta up to `next` lies upon. Where layers were merged, blocks that it brings anew may have any digest here. */
  async trees(target: TargetRecord, next: CutRecord): Promise<ReadonlyMap<string, DigestTree>> {
    const { sequence, ordinal } = target.acknowledged!;
    if (this.#known?.sequence === sequence) return this.#known.trees;
    const trees = new Map<string, DigestTree>();
    for (const disk of this.#disksAt(ordinal)) {
      const stored = await this.#stored(disk.diskId, sequence);
      trees.set(disk.diskId, stored ?? (await this.#rebuild(disk, target, next)));
    }
    this.#known = { sequence, trees };
    return trees;
  }

  /**
   * The target has a point of which no digests were made here, and its layers are gone: its digests are taken to be those of
   * the one before, because all that differs comes with the next delta. `sizes` are those of the point. Returns what of the
   * disks that have grown must come besides.
   */
  async carryOver(
    from: number,
    to: number,
    sizes: Readonly<Record<string, number>> | undefined,
  ): Promise<Map<string, Extents>> {
    const borders = new Map<string, Extents>();
    const [older, trees] = [new Map<string, DigestTree>(), new Map<string, DigestTree>()];
    for (const { diskId } of this.#machine().record.disks) {
      // A disk that came later is sent whole.
      if (sizes && sizes[diskId] === undefined) continue;
      const tree = await this.#stored(diskId, from);
      if (!tree) return borders;
      const sizeBytes = sizes?.[diskId] ?? tree.sizeBytes;
      borders.set(diskId, endBlock(tree, sizeBytes));
      older.set(diskId, tree);
      trees.set(diskId, tree.copy());
      trees.get(diskId)!.resize(sizeBytes);
    }
    this.#known = { sequence: from, trees: older };
    await this.save(to, { trees, changed: borders });
    return borders;
  }

  async #rebuild(disk: ProtectedDisk, target: TargetRecord, next: CutRecord): Promise<DigestTree> {
    const { cuts } = this.#machine();
    const { ordinal, sizes } = target.acknowledged!;
    if (!target.outrun) return this.#read(chainUpTo(disk, cuts, ordinal));
    // That state is gone; whatever differs from it is sent.
    const tree = await this.#read(chainAt(disk, cuts, next));
    const sizeBytes = sizes?.[disk.diskId];
    if (sizeBytes !== undefined) tree.resize(sizeBytes);
    return tree;
  }

  async #read(chain: Parameters<ChainTools['images']['open']>[0]): Promise<DigestTree> {
    await using reader = await this.#tools.images.open(chain);
    return await rebuildTree(reader);
  }

  /** Undefined if the stored digests cannot be used. */
  async #stored(diskId: string, sequence: number): Promise<DigestTree | undefined> {
    try {
      return await this.#store.load(diskId, sequence);
    } catch (error) {
      if (!isFailure(error, 'REPLICATION_DIGESTS_LOST')) throw error;
      this.#tools.log.warn('digests.lost', {
        machine: this.#machine().record.name,
        diskId,
        reason: error.message,
      });
      return undefined;
    }
  }

  /**
   * Why the files here may not be what the target acknowledged; undefined if they read as it was. For a machine that ran on
   * other disks in between.
   */
  async doubt(
    { acknowledged, outrun }: TargetRecord,
    only: readonly string[] | undefined,
    { record, cuts }: Delivered,
  ): Promise<string | undefined> {
    if (!acknowledged || outrun) return 'nothing was acknowledged that its files could be compared with';
    for (const disk of record.disks.filter((one) => isThereAt(one, acknowledged.ordinal))) {
      if (only && !only.includes(disk.diskId)) continue;
      const was = await this.#stored(disk.diskId, acknowledged.sequence);
      if (!was) return 'the digests that its files could be compared with are lost';
      const is = await this.#read(chainUpTo(disk, cuts, acknowledged.ordinal));
      if (!was.root().equals(is.root())) return `the files of ${disk.diskId} have been written since`;
    }
    return undefined;
  }

  /** The disks that the machine had at an acknowledged cut; the trees of the others would say nothing. */
  #disksAt(ordinal: number): ProtectedDisk[] {
    return this.#machine().record.disks.filter((disk) => isThereAt(disk, ordinal));
  }

  async remove(): Promise<void> {
    for (const { diskId } of this.#machine().record.disks) await this.#store.remove(diskId);
  }
}
