import { messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { type BranchRecord, type Replica, removeBranch } from '../replica/index.ts';
import { failoverFailure } from './errors.ts';
import type { PointSummary } from './report.ts';
import { type Attempt, type RunUnderWay, summaryOf } from './run-under-way.ts';

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

/**
 * Discards what was written in a branch that has been left for a later point, which did not fail: what people worked with only once that
 * is known to work, and not where nothing was asked of its guest. What stays against the wish, also because it cannot be removed, is said;
 * the new machine is at work all the same.
 */
export async function discardLeft(
  files: FileSystem,
  replica: Replica,
  { branchId, purpose }: Pick<BranchRecord, 'branchId' | 'purpose'>,
  o: { readonly verdict: Attempt['report']['verdict']; readonly run: Pick<RunUnderWay, 'warn'> },
): Promise<'kept' | 'discarded'> {
  const kept = (why: string) => {
    o.run.warn([
      `Branch ${branchId} is kept: ${why}. \`warmsite failover cleanup\` removes it when it is not needed any more.`,
    ]);
    return 'kept' as const;
  };
  if (purpose === 'failover' && o.verdict !== 'passed')
    return kept('nothing has shown that the later point works');
  try {
    await removeBranch(files, replica, branchId);
    return 'discarded';
  } catch (error) {
    return kept(`it could not be removed (${messageOf(error)})`);
  }
}
