import type { Clock } from '../../lib/clock.ts';
import type { Replica, Replicas } from '../../replica/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import { Rounds } from '../base/rounds.ts';

const LOOK_EVERY_MS = 60_000;

/**
 * Replicas that could not be opened are tried again: what hindered it, a file system that was not mounted perhaps, may have
 * passed, and nobody should have to restart a site to recover a machine.
 */
export class BrokenReplicas {
  readonly #replicas: Replicas;
  readonly #alerts: AlertSink;
  readonly #prepare: (replica: Replica) => Promise<void>;
  readonly #onOpened: (replica: Replica) => void;
  readonly #rounds: Rounds;

  constructor(o: {
    replicas: Replicas;
    clock: Clock;
    alerts: AlertSink;
    /** What must have been done with a replica before it counts as one. */
    prepare: (replica: Replica) => Promise<void>;
    onOpened: (replica: Replica) => void;
  }) {
    this.#replicas = o.replicas;
    this.#alerts = o.alerts;
    this.#prepare = o.prepare;
    this.#onOpened = o.onOpened;
    this.#tell();
    this.#rounds = new Rounds({
      ...{ clock: o.clock, everyMs: LOOK_EVERY_MS, waitFirst: true },
      round: () => this.#tryAgain(),
    });
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #tryAgain(): Promise<void> {
    for (const replica of await this.#replicas.reopenBroken(this.#prepare)) this.#onOpened(replica);
    this.#tell();
  }

  #tell(): void {
    for (const { record } of this.#replicas.list()) this.#alerts.clear(`replica:${record.machineId}`);
    for (const { machineId, error } of this.#replicas.broken) {
      this.#alerts.raise(`replica:${machineId}`, 'critical', failureOf(error), machineId);
    }
  }
}
