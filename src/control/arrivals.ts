import type { ArrivalRule, JobView } from '../api/index.ts';
import { type Failure, isFailure } from '../lib/errors.ts';
import type { Replica } from '../replica/index.ts';
import type { AlertSink } from './alerts.ts';
import type { ArrivalRules } from './arrival-rules.ts';
import { controlFailure } from './errors.ts';
import { preparationArgs } from './failover-acts.ts';
import type { JobArgs, JobRequest } from './jobs.ts';

const PREPARED_NAME = /^arrival-\d+$/;

export interface ArrivalTools {
  readonly rules: ArrivalRules;
  /** The replica of a machine, if it can be used now. */
  readonly replicaOf: (machineId: string) => Replica | undefined;
  /** Points whose last isolated boot passed. */
  readonly provenPoints: (replica: Replica) => Promise<ReadonlySet<string>>;
  /** Throws BRANCH_NEEDED, FAILOVER_BRANCH_BUSY. */
  readonly removeBranch: (replica: Replica, branchId: string) => Promise<void>;
  readonly start: (request: JobRequest) => JobView;
  /** The job when it has ended; undefined if the site closes before. */
  readonly endOf: (jobId: string, signal: AbortSignal) => Promise<JobView | undefined>;
  readonly alerts: AlertSink;
}

/**
 * Does with points that arrive what the rules of this site say: tests them, or prepares them. One at a time of the whole
 * site, because each boots a machine. Of each machine the newest counts: one that is overtaken while it waits is passed over.
 * What fails raises an alert, which the next success clears.
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
  async begin(): Promise<void> {
    for (const machineId of this.#o.rules.machineIds) await this.ruleChanged(machineId);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#waiting.clear();
    await this.#work;
  }

  /** The newest point that the rule is about has its turn, if nothing has been done with it yet. */
  async ruleChanged(machineId: string): Promise<void> {
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
    const isDone =
      rule.work.kind === 'prepare'
        ? replica.branches.some((branch) => branch.purpose === 'prepared' && branch.pointId === pointId)
        : (await this.#o.provenPoints(replica)).has(pointId);
    if (!isDone) this.#add(machineId, pointId);
  }

  /** A point has been published here. */
  arrived(machineId: string, pointId: string): void {
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
    const { kind, args } = jobOf(rule, pointId, sequence);
    const { jobId } = this.#o.start({ kind, args, actor: 'site', machineId });
    const ended = await this.#o.endOf(jobId, this.#stop.signal);
    if (!ended) return;
    const why = objectionTo(ended);
    const { alerts } = this.#o;
    if (why === undefined) {
      alerts.clear(keyOf(machineId));
      if (rule.work.kind === 'prepare') await this.#removeOlder(replica, pointId);
    } else if (ended.state !== 'cancelled') {
      alerts.raise(keyOf(machineId), 'warning', arrivalFailure(replica, sequence, rule, why), machineId);
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
  return `arrival:${machineId}`;
}

function isMeant({ copyTypes }: ArrivalRule, copyType: string): boolean {
  return copyTypes?.includes(copyType) ?? true;
}

function jobOf(
  { work }: ArrivalRule,
  pointId: string,
  sequence: number,
): { readonly kind: 'failover.test' | 'failover.prepare'; readonly args: JobArgs } {
  if (work.kind === 'test') {
    const probes = work.probes ? { probes: work.probes } : {};
    return { kind: 'failover.test', args: { pointId, keep: false, ...probes } };
  }
  const { kind: _prepare, ...asked } = work;
  const args = preparationArgs(pointId, { ...asked, name: `arrival-${sequence}` });
  return { kind: 'failover.prepare', args };
}

/** What there is to say against how a job ended; undefined if the point passed. */
function objectionTo({ state, failure, result }: JobView): string | undefined {
  if (state !== 'done') return failure?.message ?? state;
  const { verdict, attempts = [] } = (result ?? {}) as {
    verdict?: string;
    attempts?: { reasons?: readonly string[]; assertions?: readonly { name: string; outcome: string }[] }[];
  };
  const last = attempts.at(-1);
  if (verdict === 'failed') return (last?.reasons ?? []).join('; ') || 'it did not come up';
  const broken = (last?.assertions ?? []).filter(({ outcome }) => outcome === 'failed');
  return broken.length > 0 ? `not as claimed: ${broken.map(({ name }) => name).join(', ')}` : undefined;
}

function arrivalFailure(replica: Replica, sequence: number, { work }: ArrivalRule, why: string): Failure {
  const { machineId, machineName } = replica.record;
  const act = work.kind === 'test' ? 'did not pass its test' : 'could not be prepared';
  const said = `point ${sequence} of ${machineName} ${act}: ${why}`;
  return controlFailure('ARRIVAL_FAILED', said, { context: { machineId, sequence } });
}
