import {
  aimOf,
  type KeepReason,
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

/** Whether a proof of boot exists of a point. */
export type Proven = (pointId: string) => boolean;

/** Reasons to keep points, by their id, that lie outside of their replica. */
export type Others = ReadonlyMap<string, readonly KeepReason[]>;

/** What the policy keeps of the points, and why. Pure. */
export function verdictsOf(
  points: readonly ReplicaPoint[],
  branches: readonly BranchRecord[],
  proven: Proven,
  policy: RetentionPolicy,
  zones: Zones,
  others?: Others,
): readonly RetentionVerdict[] {
  const verdicts = retentionOf(factsOf(points, branches, proven), policy, zones);
  if (!others) return verdicts;
  return verdicts.map((verdict) => ({
    ...verdict,
    reasons: [...verdict.reasons, ...(others.get(verdict.pointId) ?? [])],
  }));
}

/** What retention looks at. Pure. A point of which a seed is on its way must be there when it comes. */
function factsOf(
  points: readonly ReplicaPoint[],
  branches: readonly BranchRecord[],
  proven: Proven,
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
