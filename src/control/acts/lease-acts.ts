import type { LeaseEndRequest, LeaseRequest, MachineView } from '../../api/index.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { peerMeant } from '../inventory/views.ts';
import type { LeaseVotes } from '../leases/lease-votes.ts';
import { type Leases, termsOf } from '../leases/leases.ts';
import type { PeerLinks } from '../peers/peer-links.ts';

/** What a person does with the leases by which a machine runs. */
export class LeaseActs {
  readonly #o: {
    readonly leases: Leases;
    readonly votes: Pick<LeaseVotes, 'witnessed' | 'forgetWitnessed'>;
    readonly inventory: Inventory;
    readonly links: PeerLinks;
    readonly audit: Audit;
  };

  constructor(o: {
    leases: Leases;
    votes: Pick<LeaseVotes, 'witnessed' | 'forgetWitnessed'>;
    inventory: Inventory;
    links: PeerLinks;
    audit: Audit;
  }) {
    this.#o = o;
  }

  begin(actor: string, reference: string, request: LeaseRequest): Promise<MachineView> {
    const { leases, inventory, links, audit } = this.#o;
    const machine = inventory.home(reference);
    const { machineId, name, protection } = machine.record;
    const witness = peerMeant(links.views(), request.witness);
    const recovery = request.recovery
      ? peerMeant(links.views(), request.recovery).siteId
      : protection?.targetSiteId;
    if (!recovery) throw controlFailure('LEASE_IMPOSSIBLE', `${name} is not protected`);
    const sites = { witnessSiteId: witness.siteId, recoverySiteId: recovery };
    return audit.acting({ actor, act: 'vm.lease', subject: machineId, details: sites }, async () => {
      await leases.begins(machine, termsOf(request, sites));
      return inventory.view(inventory.find(machineId));
    });
  }

  /** At a witness, on the word of a person. Throws LEASE_UNKNOWN, LEASE_AMBIGUOUS, LEASE_LENT. */
  forget(actor: string, reference: string): Promise<{ done: true }> {
    const { votes, audit } = this.#o;
    const { machineId } = votes.witnessed(reference);
    return audit.acting({ actor, act: 'lease.forget', subject: machineId }, async () => {
      await votes.forgetWitnessed(machineId);
      return { done: true };
    });
  }

  end(actor: string, reference: string, request: LeaseEndRequest): Promise<MachineView> {
    const { leases, inventory, audit } = this.#o;
    const machine = inventory.home(reference);
    const { machineId } = machine.record;
    const details = { confirmOtherSideDown: request.confirmOtherSideDown ?? false };
    return audit.acting({ actor, act: 'vm.lease.end', subject: machineId, details }, async () => {
      await leases.ends(machine, request.confirmOtherSideDown === true);
      return inventory.view(inventory.find(machineId));
    });
  }
}
