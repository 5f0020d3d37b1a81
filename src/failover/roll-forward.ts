import type { BranchRecord, Replica } from '../replica/index.ts';
import { failoverFailure } from './errors.ts';
import type { PointSummary } from './report.ts';
import { summaryOf } from './run-under-way.ts';

/** The way of a branch to a later point of its replica. */
export interface RollForward {
  readonly from: PointSummary;
  /** The points after `from`, in the order in which they were cut; the last one is the one that is run. */
  readonly following: readonly PointSummary[];
}

/**
 * The points that follow a branch's own, up to `to`; up to the very next one if that is absent. All of them are here already:
 * nothing is sent for it. Throws FAILOVER_NOT_FORWARD, and REPLICA_UNKNOWN for a point that is not there.
 */
export function rollForward(replica: Replica, branch: BranchRecord, to?: string): RollForward {
  const from = replica.point(branch.pointId);
  const later = replica.points.filter(({ statement }) => statement.sequence > from.statement.sequence);
  const last = to === undefined ? later[0] : replica.point(to);
  if (!last || last.statement.sequence <= from.statement.sequence) {
    const { sequence } = from.statement;
    const said = last
      ? `point ${last.statement.sequence} is not later than ${sequence}, the one of the branch`
      : `no point follows ${sequence}, the one of the branch`;
    const context = { branchId: branch.branchId, sequence };
    throw failoverFailure('FAILOVER_NOT_FORWARD', said, { context });
  }
  const until = last.statement.sequence;
  const following = later.filter(({ statement }) => statement.sequence <= until);
  return { from: summaryOf(from), following: following.map(summaryOf) };
}
