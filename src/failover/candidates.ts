import { DEFAULT_WISH, ranked, type SelectionWish } from '../recovery-point/index.ts';
import type { Replica } from '../replica/index.ts';
import { failoverFailure } from './errors.ts';

/** Which point: a certain one, or the best by a wish. */
export type PointChoice = { readonly pointId: string } | { readonly wish?: Partial<SelectionWish> };

export interface Candidate {
  readonly pointId: string;
  readonly reason: string;
}

/** So many points are tried before a person is asked again. */
const ATTEMPTS_MAX = 3;

/**
 * The points to try, the first one first. A point that a person names is tried alone. Throws FAILOVER_NO_POINT,
 * REPLICA_AWAITING_SEED, and REPLICA_UNKNOWN for a point that is not there.
 */
export function candidatesOf(
  replica: Replica,
  choice: PointChoice,
  proven: ReadonlySet<string>,
): readonly Candidate[] {
  replica.checkUsable();
  if ('pointId' in choice) {
    return [{ pointId: replica.point(choice.pointId).statement.pointId, reason: 'named by a person' }];
  }
  const wish: SelectionWish = { ...DEFAULT_WISH, ...choice.wish };
  const points = replica.points.map(({ statement, manifest }) => ({
    pointId: statement.pointId,
    sequence: statement.sequence,
    consistency: statement.consistency,
    cutAtMs: manifest.cutAtHereMs,
    proven: proven.has(statement.pointId),
  }));
  const choices = ranked(points, wish).slice(0, ATTEMPTS_MAX);
  if (choices.length > 0) return choices;
  throw failoverFailure(
    'FAILOVER_NO_POINT',
    `${replica.record.machineName} has no point that is at least ${wish.atLeast}-consistent`,
    { context: { machineId: replica.record.machineId, points: points.length } },
  );
}
