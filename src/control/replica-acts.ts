import type { Replicas } from '../replica/index.ts';
import type { Alerts } from './alerts.ts';
import type { ArrivalRules } from './arrival-rules.ts';
import type { Audit } from './audit.ts';
import type { Inventory } from './inventory.ts';
import type { ReplicaKeeper } from './replica-keeper.ts';

/** What a person does with replicas as wholes. */
export class ReplicaActs {
  readonly #replicas: Replicas;
  readonly #inventory: Inventory;
  readonly #keeper: ReplicaKeeper;
  readonly #audit: Audit;
  readonly #alerts: Alerts;
  readonly #rules: ArrivalRules;

  constructor(o: {
    replicas: Replicas;
    inventory: Inventory;
    keeper: ReplicaKeeper;
    audit: Audit;
    alerts: Alerts;
    rules: ArrivalRules;
  }) {
    this.#replicas = o.replicas;
    this.#inventory = o.inventory;
    this.#keeper = o.keeper;
    this.#audit = o.audit;
    this.#alerts = o.alerts;
    this.#rules = o.rules;
  }

  /** Removes a replica with all its points; one that cannot be opened is named by its id. Throws REPLICA_NEEDED. */
  remove(actor: string, reference: string): Promise<void> {
    const isBroken = this.#replicas.broken.some(({ machineId }) => machineId === reference);
    const subject = isBroken ? reference : this.#inventory.replica(reference).record.machineId;
    return this.#audit.acting({ actor, act: 'replica.remove', subject }, async () => {
      await this.#replicas.remove(subject);
      this.#keeper.forget(subject);
      await this.#rules.change(subject, undefined);
      for (const about of ['replica', 'arrival']) this.#alerts.clear(`${about}:${subject}`);
    });
  }
}
