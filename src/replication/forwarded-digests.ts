import { BLOCK_BYTES_DEFAULT, DigestTree } from '../delta/index.ts';
import { isFailure } from '../lib/errors.ts';
import type { Extents } from '../lib/extents.ts';
import type { Replica, ReplicaPoint, ReplicaTools } from '../replica/index.ts';
import { DigestStore } from './digests.ts';
import type { TargetRecord } from './records.ts';

/** What a site lacks of one point, by the digests of all disks of the point. */
export interface ForwardedDelta {
  /** What the site has; a disk that is new to it is not there. */
  readonly before: ReadonlyMap<string, DigestTree>;
  readonly now: ReadonlyMap<string, DigestTree>;
  /** Where the two differ, in whole blocks. */
  readonly changed: ReadonlyMap<string, Extents>;
  /** Disks of which it is not known what the site has: all of their content is sent, upon what is there. */
  readonly unknown: ReadonlySet<string>;
}

/**
 * The digests of the points of a replica, compared with those that a site it is forwarded to has acknowledged. The latter are
 * kept beside the replica, so that the acknowledged point itself need not stay.
 */
export class ForwardedDigests {
  readonly #replica: Replica;
  readonly #store: DigestStore;
  readonly #tools: Pick<ReplicaTools, 'files' | 'log'>;
  readonly #directory: string;
  #known: { readonly sequence: number; readonly trees: ReadonlyMap<string, DigestTree> } | undefined;

  constructor(tools: Pick<ReplicaTools, 'files' | 'log'>, replica: Replica, siteId: string) {
    this.#tools = tools;
    this.#replica = replica;
    this.#directory = replica.layout.forwardedLeaves(siteId);
    this.#store = new DigestStore(tools.files, this.#directory);
  }

  async delta(
    { statement: { pointId, disks } }: ReplicaPoint,
    acknowledged: TargetRecord['acknowledged'],
  ): Promise<ForwardedDelta> {
    const diskIds = disks.map(({ diskId }) => diskId);
    const has = acknowledged ? await this.#acknowledged(acknowledged, diskIds) : undefined;
    const now = new Map<string, DigestTree>();
    const before = new Map<string, DigestTree>();
    const changed = new Map<string, Extents>();
    const unknown = new Set<string>();
    for (const { diskId, sizeBytes } of disks) {
      const tree = await this.#replica.treeAt(pointId, diskId);
      const older = has?.trees.get(diskId);
      now.set(diskId, tree);
      if (has?.lost.has(diskId)) {
        // Whatever the site has of it, all that it should have comes now.
        unknown.add(diskId);
        before.set(diskId, tree);
        changed.set(diskId, [{ offset: 0, length: sizeBytes }]);
      } else {
        if (older) before.set(diskId, older);
        changed.set(diskId, tree.differenceFrom(older ?? emptyLike(tree)));
      }
    }
    return { before, now, changed, unknown };
  }

  /** `diskIds`: of which disks nothing is known where it is not known which ones the site has. */
  async #acknowledged(
    { pointId, sequence, sizes }: NonNullable<TargetRecord['acknowledged']>,
    diskIds: readonly string[],
  ): Promise<{
    readonly trees: ReadonlyMap<string, DigestTree>;
    readonly lost: ReadonlySet<string>;
  }> {
    if (this.#known?.sequence === sequence) return { trees: this.#known.trees, lost: new Set() };
    const trees = new Map<string, DigestTree>();
    const lost = new Set<string>(sizes ? [] : diskIds);
    for (const diskId of Object.keys(sizes ?? {})) {
      const tree = await this.#stored(diskId, pointId, sequence);
      if (tree) trees.set(diskId, tree);
      else lost.add(diskId);
    }
    if (lost.size === 0) this.#known = { sequence, trees };
    return { trees, lost };
  }

  /** Undefined if nothing here tells any more what the site has. */
  async #stored(diskId: string, pointId: string, sequence: number): Promise<DigestTree | undefined> {
    try {
      return await this.#store.load(diskId, sequence);
    } catch (error) {
      if (!isFailure(error, 'REPLICATION_DIGESTS_LOST')) throw error;
      const machine = this.#replica.record.machineName;
      this.#tools.log.warn('digests.lost', { machine, diskId, reason: error.message });
      const isHere = this.#replica.points.some(({ statement }) => statement.pointId === pointId);
      return isHere ? await this.#replica.treeAt(pointId, diskId) : undefined;
    }
  }

  /** Durable on return; to be recorded as acknowledged afterwards. */
  async save(sequence: number, { before, now, changed, unknown }: ForwardedDelta): Promise<void> {
    for (const [diskId, tree] of now) {
      const isWhole = unknown.has(diskId) || !before.has(diskId);
      // What is there of older files cannot be read, or is of a disk that the site has no more.
      if (isWhole) await this.#store.remove(diskId);
      const differing = unknown.has(diskId) ? tree.differenceFrom(emptyLike(tree)) : changed.get(diskId)!;
      await this.#store.save(diskId, sequence, tree, isWhole ? undefined : before.get(diskId), differing);
    }
    this.#known = { sequence, trees: now };
  }

  remove(): Promise<void> {
    return this.#tools.files.removeDirectory(this.#directory);
  }
}

function emptyLike({ sizeBytes }: DigestTree): DigestTree {
  return new DigestTree({ sizeBytes, blockBytes: BLOCK_BYTES_DEFAULT });
}
