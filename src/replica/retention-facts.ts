import {
  aimOf,
  type PointStatement,
  type RetentionPolicy,
  type RetentionVerdict,
  retentionOf,
  satisfies,
  type Zones,
} from '../recovery-point/index.ts';
import type { ReplicaPoint } from './description.ts';
import type { BranchRecord } from './records.ts';
import { areAwaitingSeed } from './seeding.ts';

/** What the policy keeps of the points, and why. Pure. */
export function verdictsOf(
  points: readonly ReplicaPoint[],
  branches: readonly BranchRecord[],
  proven: (pointId: string) => boolean,
  policy: RetentionPolicy,
  zones: Zones,
): readonly RetentionVerdict[] {
  return retentionOf(factsOf(points, branches, proven), policy, zones);
}

/** What retention looks at. Pure. A point of which a seed is on its way must be there when it comes. */
function factsOf(
  points: readonly ReplicaPoint[],
  branches: readonly BranchRecord[],
  proven: (pointId: string) => boolean,
): Parameters<typeof retentionOf>[0] {
  const isAwaiting = areAwaitingSeed(points);
  return points.map(({ statement, manifest }) => ({
    ...{ pointId: statement.pointId, sequence: statement.sequence, copyType: statement.copyType },
    ...{ cutAtMs: statement.cutAtMs, cutAtHereMs: manifest.cutAtHereMs },
    degraded: fellShort(statement),
    proven: proven(statement.pointId),
    ...(manifest.held ? { hold: manifest.hold ?? {} } : {}),
    inUse:
      branches.some(({ pointId }) => pointId === statement.pointId) ||
      (isAwaiting && manifest.seed !== undefined),
  }));
}

/** Of a machine that does not run an application-consistent copy is crash-consistent, and nobody is to blame. */
function fellShort(statement: PointStatement): boolean {
  return statement.degraded !== undefined || !satisfies(statement.consistency, aimOf(statement));
}
