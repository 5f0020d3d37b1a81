import type { retentionOf } from '../recovery-point/index.ts';
import type { ReplicaPoint } from './description.ts';
import type { BranchRecord } from './records.ts';
import { areAwaitingSeed } from './seeding.ts';

/** What retention looks at. Pure. A point of which a seed is on its way must be there when it comes. */
export function retentionFacts(
  points: readonly ReplicaPoint[],
  branches: readonly BranchRecord[],
  proven: (pointId: string) => boolean,
): Parameters<typeof retentionOf>[0] {
  const isAwaiting = areAwaitingSeed(points);
  return points.map(({ statement: { pointId, sequence, consistency }, manifest }) => ({
    ...{ pointId, sequence, consistency },
    proven: proven(pointId),
    held: manifest.held ?? false,
    inUse:
      branches.some((branch) => branch.pointId === pointId) || (isAwaiting && manifest.seed !== undefined),
  }));
}
