import { hasGivenUp } from '../recovery-point/index.ts';
import { type BranchRecord, type Replica, tenureOfReplica } from '../replica/index.ts';
import { failoverFailure } from './errors.ts';
import { type PointSummary, type StepReport, Stopwatch } from './report.ts';
import { checkMayUndo, giveUpRight } from './right.ts';
import { summaryOf } from './run-under-way.ts';
import type { BranchEnd } from './stop-branch.ts';
import type { FailoverTools } from './tools.ts';

/** What the undoing of a failover has ended, and what of it is kept; plain JSON as the other reports. */
export interface UndoReport {
  readonly kind: 'undo';
  readonly machine: { readonly machineId: string; readonly name: string };
  /** Of the claim that was given up. */
  readonly epoch: number;
  /** The site where the machine was: it may ask for it now. */
  readonly sourceSiteId: string;
  /** What failovers of the machine have written here; nothing of it is thrown away. */
  readonly branches: readonly {
    readonly branchId: string;
    readonly name?: string;
    readonly point: PointSummary;
    /** How its machine was ended by this. */
    readonly ended: BranchEnd;
  }[];
  readonly startedAtMs: number;
  readonly steps: readonly StepReport[];
}

/** The act of `Failovers.undo`: nothing of the machine is started meanwhile. `stop` ends what runs on a branch, durably. */
export async function undoFailover(
  tools: Pick<FailoverTools, 'clock' | 'siteId' | 'log'>,
  replica: Replica,
  stop: (branch: BranchRecord) => Promise<BranchEnd>,
): Promise<UndoReport> {
  const { clock, siteId, log } = tools;
  const startedAtMs = clock.wallMs();
  const watch = new Stopwatch(clock);
  checkMayUndo(replica, siteId);
  const branches: UndoReport['branches'][number][] = [];
  await watch.time('shut-down', async () => {
    for (const branch of replica.branches.filter(({ purpose }) => purpose === 'failover')) {
      const { branchId, name, pointId } = branch;
      const ended = await stop(branch);
      const point = summaryOf(replica.point(pointId));
      branches.push({ branchId, ...(name === undefined ? {} : { name }), point, ended });
    }
  });
  await watch.time('give-up', () => giveUpRight(replica, siteId));
  const { machineId, machineName: name, sourceSiteId, epoch } = replica.record;
  if (!hasGivenUp(tenureOfReplica(replica.record, siteId), siteId)) {
    const said = `another site has taken ${name} meanwhile`;
    throw failoverFailure('FAILOVER_FENCED', said, { context: { machineId } });
  }
  log.info('failover.undone', { machineId, epoch });
  return {
    ...{ kind: 'undo', machine: { machineId, name }, epoch, sourceSiteId, branches, startedAtMs },
    steps: watch.steps,
  };
}
