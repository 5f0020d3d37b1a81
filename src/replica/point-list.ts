import { diskIdsOf, hasDisk, type ReplicaPoint } from './description.ts';
import { partOf } from './merge-plan.ts';
import type { MergeIntent } from './records.ts';
import type { Unmerged } from './unmerged.ts';

/**
 * The points of a replica in chain order, and which layers make up a disk at each of them. The two differ while a merge takes
 * points away: nobody may begin to use those, but their layers belong to the chains until it has ended. A value: every change
 * gives another list.
 */
export class PointList {
  readonly #points: readonly ReplicaPoint[];
  /** Points that a merge which goes on right now takes away; their layers are where they were. */
  readonly #leaving: ReadonlySet<string>;
  /** A merge that could not be ended: what it takes away is in the list no more. */
  readonly #unmerged: Unmerged | undefined;

  private constructor(
    points: readonly ReplicaPoint[],
    leaving: readonly string[],
    unmerged: Unmerged | undefined,
  ) {
    this.#points = points;
    this.#leaving = new Set(leaving);
    this.#unmerged = unmerged;
  }

  /** `points` in ascending order; without those that `unmerged` takes away. */
  static of(points: readonly ReplicaPoint[], unmerged: Unmerged | undefined): PointList {
    const stays = ({ statement }: ReplicaPoint) => !unmerged?.intent.remove.includes(statement.pointId);
    return new PointList(points.filter(stays), [], unmerged);
  }

  /** The points that may be used, the oldest first. */
  get listed(): readonly ReplicaPoint[] {
    return this.#points.filter(({ statement }) => !this.#leaving.has(statement.pointId));
  }

  get newest(): ReplicaPoint | undefined {
    return this.#points.at(-1);
  }

  /** A merge was begun and has not ended, nor does it go on. */
  get unmerged(): Unmerged | undefined {
    return this.#unmerged;
  }

  /** Points are being taken away, or were to be. */
  get isLosing(): boolean {
    return this.#unmerged !== undefined || this.#leaving.size > 0;
  }

  with(point: ReplicaPoint): PointList {
    return new PointList([...this.#points, point], [...this.#leaving], this.#unmerged);
  }

  /** A merge begins to take points away. */
  losing({ remove }: MergeIntent): PointList {
    return new PointList(this.#points, remove, this.#unmerged);
  }

  /** What was to be taken away stays: no merge has begun. */
  keepingAll(): PointList {
    return new PointList(this.#points, [], undefined);
  }

  /** A merge has ended. */
  without({ remove }: MergeIntent): PointList {
    const stays = ({ statement }: ReplicaPoint) => !remove.includes(statement.pointId);
    return new PointList(this.#points.filter(stays), [], undefined);
  }

  /** A merge has failed on its way. */
  stuck(unmerged: Unmerged): PointList {
    return PointList.of(this.#points, unmerged);
  }

  /** The list as it is up to a point. */
  upTo(point: ReplicaPoint): PointList {
    const points = this.#points.slice(0, this.#points.indexOf(point) + 1);
    return new PointList(points, [...this.#leaving], this.#unmerged);
  }

  /** The list as it is up to the last point that has a disk. */
  upToLastOf(diskId: string): PointList {
    return this.upTo(this.#points.findLast((point) => hasDisk(point, diskId))!);
  }

  /** The disks that any of the points has. */
  get diskIds(): string[] {
    return [...new Set(this.#points.flatMap(diskIdsOf))];
  }

  /** The points whose layers make up a disk at the newest point, the oldest first; none if that has no such disk. */
  layers(diskId: string): string[] {
    return this.#withUnmerged(diskId, (unmerged) => unmerged.layers.get(diskId) ?? []);
  }

  /** As `layers`, but with every point whose layer there may still be something of. */
  layersAtMost(diskId: string): string[] {
    return this.#withUnmerged(diskId, ({ intent }) => partOf(intent, diskId).remove);
  }

  #withUnmerged(diskId: string, left: (unmerged: Unmerged) => readonly string[]): string[] {
    const { newest } = this;
    if (!newest || !hasDisk(newest, diskId)) return [];
    const unmerged = this.#unmerged;
    return this.#points
      .filter((point) => hasDisk(point, diskId))
      .flatMap(({ statement: { pointId } }) =>
        unmerged && pointId === unmerged.intent.into ? [...left(unmerged), pointId] : [pointId],
      );
  }
}
