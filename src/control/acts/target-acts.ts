import type { AddTargetRequest, ChangeTargetRequest, MachineView } from '../../api/index.ts';
import type { ProtectedMachine } from '../../replication/index.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { Groups } from '../groups/groups.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { peerMeant } from '../inventory/views.ts';
import { checkUnleased } from '../leases/leases.ts';
import type { Machines } from '../machines/machines.ts';
import type { PeerLinks } from '../peers/peer-links.ts';

interface TargetTools {
  readonly machines: Machines;
  readonly inventory: Inventory;
  readonly links: Pick<PeerLinks, 'views'>;
  readonly audit: Audit;
  readonly groups: Pick<Groups, 'of' | 'checkRetention'>;
}

/** What a person does with the sites that one machine is replicated to. Each act answers with the machine afterwards. */
export class TargetActs {
  readonly #o: TargetTools;

  constructor(o: TargetTools) {
    this.#o = o;
  }

  /** Throws SITE_PEER_UNKNOWN, PROTECTION_TARGET_EXISTS, PROTECTION_TARGETS_TOO_MANY, POLICY_*. */
  add(actor: string, reference: string, request: AddTargetRequest): Promise<MachineView> {
    const { siteId } = peerMeant(this.#o.links.views(), request.target);
    const machine = this.#o.inventory.home(reference);
    return this.#act(actor, 'target.add', machine, { ...request, target: siteId }, () =>
      this.#o.machines.addTarget(machine, siteId, request),
    );
  }

  change(
    actor: string,
    reference: string,
    target: string,
    request: ChangeTargetRequest,
  ): Promise<MachineView> {
    const machine = this.#o.inventory.home(reference);
    const siteId = this.meant(target);
    return this.#act(actor, 'target.change', machine, { ...request, target: siteId }, async () => {
      const { machineId } = machine.record;
      if (request.retention) this.#o.groups.checkRetention(machineId, siteId, request.retention);
      await this.#o.machines.changeTarget(machine, siteId, request);
    });
  }

  /** Throws MACHINE_IN_GROUP, MACHINE_LEASED, PROTECTION_TARGET_UNKNOWN, PROTECTION_TARGET_LAST. */
  remove(actor: string, reference: string, target: string): Promise<MachineView> {
    const machine = this.#o.inventory.home(reference);
    const siteId = this.meant(target);
    return this.#act(actor, 'target.remove', machine, { target: siteId }, async () => {
      const { machineId, name } = machine.record;
      const group = this.#o.groups.of(machineId);
      if (group?.targetSiteId === siteId) {
        throw controlFailure(
          'MACHINE_IN_GROUP',
          `${name} is in the group ${group.name}, which is kept there`,
        );
      }
      if (machine.record.lease?.recoverySiteId === siteId) checkUnleased(machine);
      await this.#o.machines.removeTarget(machine, siteId);
    });
  }

  /** A site by name or id; also one that is not paired any more, by its id. */
  meant(reference: string): string {
    const named = this.#o.links.views().filter(({ name }) => name === reference);
    return named.length === 1 ? named[0]!.siteId : reference;
  }

  #act(
    actor: string,
    act: string,
    machine: ProtectedMachine,
    details: Readonly<Record<string, unknown>>,
    work: () => Promise<void>,
  ): Promise<MachineView> {
    const { machineId: subject } = machine.record;
    return this.#o.audit.acting({ actor, act, subject, details }, async () => {
      await work();
      return this.#o.inventory.view(this.#o.inventory.find(subject));
    });
  }
}
