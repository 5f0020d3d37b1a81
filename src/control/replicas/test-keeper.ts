import type { Failovers } from '../../failover/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Replicas } from '../../replica/index.ts';
import type { AlertSink } from '../base/alerts.ts';
import { Rounds } from '../base/rounds.ts';
import type { DivergedBranches } from './diverged-branches.ts';
import type { ReplicaKeeper } from './replica-keeper.ts';

const LOOK_EVERY_MS = 15_000;
const KEY = 'tests-space';

/** Cleans up tests whose time has come, and says so when machines stand still because the disk is full, or tests because it nearly is. */
export class TestKeeper {
  readonly #o: {
    failovers: Failovers;
    replicas: Replicas;
    diverged: Pick<DivergedBranches, 'list'>;
    keeper: ReplicaKeeper;
    alerts: AlertSink;
  };
  readonly #rounds: Rounds;

  constructor(o: {
    failovers: Failovers;
    replicas: Replicas;
    diverged: Pick<DivergedBranches, 'list'>;
    keeper: ReplicaKeeper;
    alerts: AlertSink;
    clock: Clock;
  }) {
    this.#o = o;
    this.#rounds = new Rounds({ clock: o.clock, everyMs: LOOK_EVERY_MS, round: () => this.#look() });
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #look(): Promise<void> {
    const { failovers, replicas, diverged, keeper, alerts } = this.#o;
    const before = new Map(replicas.list().map((replica) => [replica, replica.branches.length]));
    try {
      const low = await failovers.tendTests([...replicas.list(), ...(await diverged.list())]);
      if (low) alerts.raise(KEY, low.code === 'FAILOVER_NO_SPACE' ? 'critical' : 'warning', low);
      else alerts.clear(KEY);
    } catch (error) {
      if (!isFailure(error)) throw error;
      alerts.raise(KEY, 'warning', error);
    }
    // Where a branch has gone, retention may let its point go too.
    for (const [replica, branches] of before) if (replica.branches.length < branches) keeper.tend(replica);
  }
}
