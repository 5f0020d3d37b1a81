import type { ArrivalRule, JobView, SiteEvent } from '../../api/index.ts';
import { type Failure, isFailure } from '../../lib/errors.ts';
import type { Replica } from '../../replica/index.ts';
import type { AlertSink, Alerts } from '../base/alerts.ts';
import type { JobArgs, JobRequest } from '../base/jobs.ts';
import { controlFailure } from '../errors.ts';
import type { ArrivalRules } from './arrival-rules.ts';
import { outcomeOf } from './drill-outcome.ts';
import { preparationArgs } from './preparation-args.ts';

const ABOUT = 'arrival';
const PREPARED_NAME = /^arrival-\d+$/;

export interface ArrivalTools {
  readonly rules: ArrivalRules;
  /** The replica of a machine, if it can be used now. */
  readonly replicaOf: (machineId: string) => Replica | undefined;
  /** Throws BRANCH_NEEDED, FAILOVER_BRANCH_BUSY. */
  readonly removeBranch: (replica: Replica, branchId: string) => Promise<void>;
  /** Throws SITE_DATABASE_FULL. */
  readonly start: (request: JobRequest) => JobView;
  /** The job when it has ended; undefined if the site closes before. */
  readonly endOf: (jobId: string, signal: AbortSignal) => Promise<JobView | undefined>;
  readonly alerts: AlertSink & Pick<Alerts, 'clearGone'>;
}

/**
 * Prepares points that arrive, as the rules of this site say. One at a time of the whole site, because each boots a machine; drills
 * leave room for it. Of each machine the newest counts: one that is overtaken while it waits is passed over. What fails raises
 * an alert, which the next success clears.
 */
export class Arrivals {
  readonly #o: ArrivalTools;
  /** By machine: the point whose turn comes. */
  readonly #waiting = new Map<string, string>();
  readonly #stop = new AbortController();
  #work: Promise<void> | undefined;

  constructor(o: ArrivalTools) {
    this.#o = o;
  }

  /** Takes up what an earlier process has not done with the newest points. */
  begin(): void {
    const { rules, alerts } = this.#o;
    // A person may have moved the rules away that could not be read: what was said of points by them would stand for ever.
    if (!rules.isUnread) alerts.clearGone(ABOUT, new Set(rules.machineIds.map(keyOf)));
    for (const machineId of rules.machineIds) this.ruleChanged(machineId);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#waiting.clear();
    await this.#work;
  }

  /** The newest point that the rule is about has its turn, if nothing has been done with it yet. */
  ruleChanged(machineId: string): void {
    const rule = this.#o.rules.of(machineId);
    const replica = this.#o.replicaOf(machineId);
    if (!rule) {
      this.#waiting.delete(machineId);
      this.#o.alerts.clear(keyOf(machineId));
      return;
    }
    const newest = replica?.points.findLast(({ statement }) => isMeant(rule, statement.copyType));
    if (!replica || !newest) return;
    const { pointId } = newest.statement;
    const isDone = replica.branches.some(
      (branch) => branch.purpose === 'prepared' && branch.pointId === pointId,
    );
    if (!isDone) this.#add(machineId, pointId);
  }

  /** Something has happened at the site. */
  heard(event: SiteEvent): void {
    if (event.event !== 'point' || event.change !== 'published' || event.pointId === undefined) return;
    this.#arrived(event.machineId, event.pointId);
  }

  /** A point has been published here. */
  #arrived(machineId: string, pointId: string): void {
    const rule = this.#o.rules.of(machineId);
    const point = this.#o.replicaOf(machineId)?.points.find(({ statement }) => statement.pointId === pointId);
    if (rule && point && isMeant(rule, point.statement.copyType)) this.#add(machineId, pointId);
  }

  #add(machineId: string, pointId: string): void {
    if (this.#stop.signal.aborted) return;
    this.#waiting.set(machineId, pointId);
    this.#work ??= this.#go().finally(() => {
      this.#work = undefined;
    });
  }

  async #go(): Promise<void> {
    for (let next = this.#next(); next; next = this.#next()) await this.#do(...next);
  }

  #next(): [machineId: string, pointId: string] | undefined {
    const [first] = this.#waiting;
    if (first) this.#waiting.delete(first[0]);
    return first;
  }

  async #do(machineId: string, pointId: string): Promise<void> {
    const rule = this.#o.rules.of(machineId);
    const replica = this.#o.replicaOf(machineId);
    const point = replica?.points.find(({ statement }) => statement.pointId === pointId);
    if (!rule || !replica || !point) return;
    const { sequence } = point.statement;
    const args = argsOf(rule, pointId, sequence);
    const { alerts } = this.#o;
    let jobId: string;
    try {
      ({ jobId } = this.#o.start({ kind: 'failover.prepare', args, actor: 'site', machineId }));
    } catch (error) {
      // A disk that is full, perhaps: what arrives later has its turn all the same.
      if (!isFailure(error)) throw error;
      alerts.raise(keyOf(machineId), 'warning', arrivalFailure(replica, sequence, error.message), machineId);
      return;
    }
    const ended = await this.#o.endOf(jobId, this.#stop.signal);
    if (!ended) return;
    const why = objectionTo(ended);
    if (why === undefined) {
      alerts.clear(keyOf(machineId));
      await this.#removeOlder(replica, pointId);
    } else if (ended.state !== 'cancelled') {
      alerts.raise(keyOf(machineId), 'warning', arrivalFailure(replica, sequence, why), machineId);
    }
  }

  /** What people prepared themselves, and what others lie on, stays. */
  async #removeOlder(replica: Replica, pointId: string): Promise<void> {
    const older = replica.branches.filter(
      (branch) =>
        branch.purpose === 'prepared' && branch.pointId !== pointId && PREPARED_NAME.test(branch.name ?? ''),
    );
    for (const { branchId } of older) {
      try {
        await this.#o.removeBranch(replica, branchId);
      } catch (error) {
        if (!isFailure(error)) throw error;
        if (error.code === 'BRANCH_NEEDED' || error.code === 'FAILOVER_BRANCH_BUSY') continue;
        const { machineId } = replica.record;
        this.#o.alerts.raise(keyOf(machineId), 'warning', error, machineId);
      }
    }
  }
}

function keyOf(machineId: string): string {
  return `${ABOUT}:${machineId}`;
}

function isMeant({ copyTypes }: ArrivalRule, copyType: string): boolean {
  return copyTypes?.includes(copyType) ?? true;
}

function argsOf({ work }: ArrivalRule, pointId: string, sequence: number): JobArgs {
  const { kind: _prepare, ...asked } = work;
  return preparationArgs(pointId, { ...asked, name: `arrival-${sequence}` });
}

/** What there is to say against how a job ended; undefined if the point is prepared. */
function objectionTo(job: JobView): string | undefined {
  const { outcome, reason } = outcomeOf(job);
  return outcome === 'passed' ? undefined : (reason ?? outcome);
}

function arrivalFailure(replica: Replica, sequence: number, why: string): Failure {
  const { machineId, machineName } = replica.record;
  const said = `point ${sequence} of ${machineName} could not be prepared: ${why}`;
  return controlFailure('ARRIVAL_FAILED', said, { context: { machineId, sequence } });
}
