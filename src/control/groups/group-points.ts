import { type CutOfPoints, cutsOf, type GroupedPoint, isLater } from '../../recovery-point/index.ts';
import type { Replica, ReplicaPoint, Replicas } from '../../replica/index.ts';

/** A point of a machine with its replica. */
export interface ReplicaPointOfGroup extends GroupedPoint {
  readonly replica: Replica;
  readonly point: ReplicaPoint;
}

/** A cut of a group of which the verified points of all members are here. */
export type GroupPoint = CutOfPoints<ReplicaPointOfGroup>;

/** The group points of this site, as its replicas are at the moment. */
export class GroupPoints {
  readonly #replicas: Pick<Replicas, 'list'>;

  constructor(replicas: Pick<Replicas, 'list'>) {
    this.#replicas = replicas;
  }

  /** Only whole ones, and of no machine that awaits its seed. The oldest first. */
  all(): GroupPoint[] {
    const points = this.#replicas.list().flatMap(pointsOf);
    return [...cutsOf(points).values()]
      .filter(({ isWhole, points: found }) => isWhole && !found.some(({ replica }) => replica.awaitsSeed))
      .sort((a, b) => (isLater(a, b) ? 1 : isLater(b, a) ? -1 : timeOf(a) - timeOf(b)));
  }
}

function pointsOf(replica: Replica): ReplicaPointOfGroup[] {
  return replica.points.flatMap((point) => {
    const { machineId, pointId, sequence, group } = point.statement;
    return group ? [{ machineId, pointId, sequence, group, replica, point }] : [];
  });
}

/** Of cuts that no machine puts in an order. */
function timeOf({ points }: GroupPoint): number {
  return points[0]!.point.manifest.cutAtHereMs;
}
