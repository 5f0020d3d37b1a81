import type { FloorRequest, FloorView, ForwardReplicaRequest, MachineView } from '../../api/index.ts';
import { checkRetention, type Zones } from '../../recovery-point/index.ts';
import { bringerOf, type Replica, type Replicas } from '../../replica/index.ts';
import type { Alerts } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import type { ArrivalRules } from '../drills/arrival-rules.ts';
import { clearDrillAlerts } from '../drills/drill-alerts.ts';
import type { DrillStore } from '../drills/drill-store.ts';
import { controlFailure } from '../errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { peerMeant } from '../inventory/views.ts';
import { forwardIn } from '../machines/target-requests.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { Forwards } from '../replicas/forwards.ts';
import type { ReplicaFences } from '../replicas/replica-fences.ts';
import type { ReplicaKeeper } from '../replicas/replica-keeper.ts';
import type { RetentionFloor } from '../replicas/retention-floor.ts';

interface ReplicaActsTools {
  readonly replicas: Replicas;
  readonly inventory: Inventory;
  readonly keeper: ReplicaKeeper;
  readonly forwards: Forwards;
  readonly links: Pick<PeerLinks, 'views'>;
  readonly audit: Audit;
  readonly alerts: Alerts;
  readonly rules: ArrivalRules;
  readonly drills: Pick<DrillStore, 'forget'>;
  readonly floor: RetentionFloor;
  readonly zones: Zones;
  readonly fences: Pick<ReplicaFences, 'look'>;
  readonly siteMeant: (reference: string) => string;
  readonly settle: (replica: Replica) => Promise<void>;
}

/** What a person does with replicas as wholes. */
export class ReplicaActs {
  readonly #o: ReplicaActsTools;

  constructor(o: ReplicaActsTools) {
    this.#o = o;
  }

  /**
   * Removes a replica with all its points; one that cannot be opened is named by its id. Throws REPLICA_NEEDED,
   * REPLICA_FORWARDED.
   */
  remove(actor: string, reference: string): Promise<void> {
    const { replicas, inventory, keeper, forwards, audit, alerts, rules, drills } = this.#o;
    const isBroken = replicas.broken.some(({ machineId }) => machineId === reference);
    const subject = isBroken ? reference : inventory.replica(reference).record.machineId;
    return audit.acting({ actor, act: 'replica.remove', subject }, async () => {
      const replica = replicas.get(subject);
      if (replica && forwards.reports(replica).length > 0) {
        const said = `the points of ${replica.record.machineName} are forwarded from here`;
        throw controlFailure('REPLICA_FORWARDED', said, { context: { machineId: subject } });
      }
      await replicas.remove(subject);
      for (const about of ['adoption', 'fenced-replica']) alerts.clear(`${about}:${subject}`);
      // An older one that is there again may be marked as that of a machine which has gone.
      const older = replicas.get(subject);
      if (older) {
        await this.#o.settle(older);
        this.#o.fences.look(older);
      }
      keeper.forget(subject);
      await rules.forget(subject);
      await drills.forget(subject);
      clearDrillAlerts(alerts, subject);
      for (const about of ['replica', 'arrival', 'forwards']) alerts.clear(`${about}:${subject}`);
    });
  }

  /**
   * Forwards the points of a replica to another site, all that it lacks and those to come; or changes what that site gets. Throws
   * SITE_PEER_UNKNOWN, FORWARD_TO_ORIGIN, POLICY_*.
   */
  forward(actor: string, reference: string, request: ForwardReplicaRequest): Promise<MachineView> {
    const { inventory, links, forwards, zones } = this.#o;
    const { siteId, name } = peerMeant(links.views(), request.to);
    const replica = inventory.replica(reference);
    if (siteId === replica.record.sourceSiteId || siteId === bringerOf(replica.record)) {
      const said = `the points of ${replica.record.machineName} come from ${name}`;
      throw controlFailure('FORWARD_TO_ORIGIN', said, { context: { siteId } });
    }
    const details = { ...request, to: siteId };
    return this.#acting(actor, 'replica.forward', replica, details, async () => {
      if (request.retention) checkRetention(request.retention, zones);
      await forwards.set(replica, siteId, (before) =>
        forwardIn(siteId, request, before, replica.record.retention),
      );
    });
  }

  /** Forwards nothing more to a site, which keeps what it has. Throws FORWARD_UNKNOWN. */
  unforward(actor: string, reference: string, target: string): Promise<MachineView> {
    const replica = this.#o.inventory.replica(reference);
    const siteId = this.#o.siteMeant(target);
    return this.#acting(actor, 'replica.unforward', replica, { to: siteId }, async () => {
      await this.#o.forwards.stop(replica, siteId);
      // A point that was on its way may go now.
      this.#o.keeper.tend(replica);
    });
  }

  get floor(): FloorView {
    return this.#o.floor.view;
  }

  /** What this site keeps of every replica whatever others say; a lower one lets points go at once. Throws POLICY_*. */
  async changeFloor(actor: string, request: FloorRequest): Promise<FloorView> {
    const { audit, keeper } = this.#o;
    const changed = await this.#o.floor.change(audit, actor, request);
    keeper.tendAll();
    return changed;
  }

  #acting(
    actor: string,
    act: string,
    { record: { machineId: subject } }: Replica,
    details: Readonly<Record<string, unknown>>,
    work: () => Promise<void>,
  ): Promise<MachineView> {
    const { audit, inventory } = this.#o;
    return audit.acting({ actor, act, subject, details }, async () => {
      await work();
      return inventory.view(inventory.find(subject));
    });
  }
}
