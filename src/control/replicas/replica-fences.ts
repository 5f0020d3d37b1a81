import type { Failovers } from '../../failover/index.ts';
import { type Clock, sleep } from '../../lib/clock.ts';
import { failuresOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { afterSettingApart, hasGivenUp } from '../../recovery-point/index.ts';
import { type Replica, type Replicas, tenureOfReplica, withTenure } from '../../replica/index.ts';
import { REPLICATION_ERRORS } from '../../replication/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { FENCE_AGAIN_AFTER_MS, FENCED_GRACE_MS } from '../machines/fence-watch.ts';

export interface ReplicaFenceTools {
  readonly siteId: string;
  readonly clock: Clock;
  readonly failovers: Pick<Failovers, 'list' | 'stop'>;
  readonly replicas: Pick<Replicas, 'list'>;
  readonly alerts: AlertSink;
  readonly audit: Pick<Audit, 'note'>;
  readonly log: Log;
  /** What a replica has heard the machine at home upon it hears as well, if there is one. Rejects if it could not. */
  readonly passOn: (replica: Replica) => Promise<void>;
}

const replicationFailure = failuresOf(REPLICATION_ERRORS);

/**
 * Machines that were brought up here from their replicas, and that another site holds by a higher claim: they are ended as soon as that
 * has been heard; so is what runs of one that was given up. What was written here is a branch already, and stays one; a person is told.
 */
export class ReplicaFences {
  readonly #o: ReplicaFenceTools;
  readonly #stop = new AbortController();
  readonly #work = new Map<string, Promise<void>>();

  constructor(o: ReplicaFenceTools) {
    this.#o = o;
  }

  /** What an earlier process had heard is ended. */
  begin(): void {
    for (const replica of this.#o.replicas.list()) this.look(replica);
  }

  /** To be called after something was heard of the right to run the machine, and after a branch has gone. */
  look(replica: Replica): void {
    const { machineId } = replica.record;
    const before = this.#work.get(machineId) ?? Promise.resolve();
    const work = before.then(() => this.#settle(replica));
    this.#work.set(machineId, work);
    void work.finally(() => {
      if (this.#work.get(machineId) === work) this.#work.delete(machineId);
    });
  }

  /** What is not ended is ended by the next process. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#work.values());
  }

  /** Never rejects: what fails is reported, and tried again until it is done or the site closes. */
  async #settle(replica: Replica): Promise<void> {
    const { clock, log } = this.#o;
    const { signal } = this.#stop;
    for (;;) {
      try {
        return await this.#settleOnce(replica);
      } catch (error) {
        if (!signal.aborted) log.error('replica.not-fenced', { machine: replica.record.machineName, error });
      }
      try {
        await sleep(clock, FENCE_AGAIN_AFTER_MS, signal);
      } catch {
        return; // The site closes.
      }
    }
  }

  async #settleOnce(replica: Replica): Promise<void> {
    const { siteId, alerts, replicas } = this.#o;
    const { machineId, machineName: name, adopted, sourceSiteId } = replica.record;
    const key = `fenced-replica:${machineId}`;
    // It was removed, or begun anew: nothing that it says holds any more.
    if (!replicas.list().includes(replica)) return alerts.clear(key);
    const tenure = tenureOfReplica(replica.record, siteId);
    const { state, claim } = tenure;
    if (adopted === undefined && hasGivenUp(tenure, siteId)) {
      const said = `${name} was given up here, in epoch ${claim.epoch}, and runs nowhere until site ${sourceSiteId} takes it back`;
      alerts.raise(key, 'warning', replicationFailure('REPLICATION_GIVEN_UP', said), machineId);
      // It had ended before it was given up: what runs now nobody may run, and another site may take the machine at any moment.
      await this.#end(replica);
      return;
    }
    const kept = replica.branches.filter(({ purpose }) => purpose === 'failover');
    // At home here: its process is another watch's, and so is its right.
    if (adopted !== undefined || (state !== 'fenced' && (state !== 'follows' || kept.length === 0))) {
      alerts.clear(key);
      if (adopted !== undefined) await this.#o.passOn(replica);
      return;
    }
    const branches = kept.map(({ branchId }) => branchId).join(', ') || 'no branch';
    const said = `${name} is at home at site ${claim.siteId}, in epoch ${claim.epoch}; what was written here is kept in ${branches}`;
    const context = { machine: name, siteId: claim.siteId, epoch: claim.epoch };
    alerts.raise(key, 'critical', replicationFailure('REPLICATION_SET_APART', said, { context }), machineId);
    // Also of what was being started when that was heard.
    await this.#end(replica);
  }

  async #end(replica: Replica): Promise<void> {
    const { failovers, audit, siteId } = this.#o;
    const { machineId } = replica.record;
    for (const { branchId, purpose, running } of await failovers.list(replica)) {
      if (purpose !== 'failover' || !running) continue;
      const { signal } = this.#stop;
      const outcome = await failovers.stop(replica, branchId, { graceMs: FENCED_GRACE_MS, signal });
      audit.note({
        actor: 'site',
        act: 'failover.fence',
        subject: machineId,
        details: { branchId, outcome },
      });
    }
    await replica.update((record) => {
      const before = tenureOfReplica(record, siteId);
      const after = afterSettingApart(before);
      return after === before ? undefined : withTenure(record, after);
    });
  }
}
