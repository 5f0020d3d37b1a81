import type {
  AddDiskRequest,
  AddMachineRequest,
  MachineView,
  MoveRequest,
  PolicyRequest,
  ProtectRequest,
  UnprotectRequest,
} from '../../api/index.ts';
import { checkHeld, type ProtectedMachine } from '../../replication/index.ts';
import type { AlertSink, Alerts } from '../base/alerts.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { Groups } from '../groups/groups.ts';
import { checkNotOutdated, type Inventory } from '../inventory/inventory.ts';
import { peerMeant } from '../inventory/views.ts';
import { checkUnleased } from '../leases/leases.ts';
import { clearHomeAlerts } from '../machines/home-alerts.ts';
import type { Machines } from '../machines/machines.ts';
import type { TriggerTokens } from '../machines/trigger-tokens.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { DivergedBranches } from '../replicas/diverged-branches.ts';
import type { ReplicaFences } from '../replicas/replica-fences.ts';
import { endingAdoption } from './adoptions.ts';

/** What a person does with machines. Each act is audited; each answers with the machine as it is afterwards. */
export class MachineActs {
  readonly #machines: Machines;
  readonly #inventory: Inventory;
  readonly #links: Pick<PeerLinks, 'views'>;
  readonly #audit: Pick<Audit, 'acting'>;
  readonly #alerts: AlertSink & Pick<Alerts, 'clearMachine'>;
  readonly #groups: Pick<Groups, 'of' | 'checkRetention'>;
  readonly #tokens: Pick<TriggerTokens, 'remove'>;
  readonly #diverged: Pick<DivergedBranches, 'alone' | 'checkNothingUpon'>;
  readonly #fences: Pick<ReplicaFences, 'look'>;

  constructor(o: {
    machines: Machines;
    inventory: Inventory;
    links: Pick<PeerLinks, 'views'>;
    audit: Pick<Audit, 'acting'>;
    alerts: AlertSink & Pick<Alerts, 'clearMachine'>;
    groups: Pick<Groups, 'of' | 'checkRetention'>;
    tokens: Pick<TriggerTokens, 'remove'>;
    diverged: Pick<DivergedBranches, 'alone' | 'checkNothingUpon'>;
    fences: Pick<ReplicaFences, 'look'>;
  }) {
    this.#machines = o.machines;
    this.#inventory = o.inventory;
    this.#links = o.links;
    this.#audit = o.audit;
    this.#alerts = o.alerts;
    this.#groups = o.groups;
    this.#tokens = o.tokens;
    this.#diverged = o.diverged;
    this.#fences = o.fences;
  }

  list(): MachineView[] {
    return this.#inventory.list();
  }

  async show(reference: string): Promise<MachineView> {
    const found = this.#inventory.find(reference);
    const written = await this.#machines.get(found.machineId)?.loop?.written();
    const view = this.#inventory.view(found);
    const atHome = view.protected;
    if (!written?.length || !atHome?.replication) return view;
    return { ...view, protected: { ...atHome, replication: { ...atHome.replication, written } } };
  }

  add(actor: string, request: AddMachineRequest): Promise<MachineView> {
    const details =
      'attach' in request
        ? { qmpPath: request.attach.qmpPath }
        : { disks: request.disks.map(({ path }) => path) };
    return this.#audit.acting({ actor, act: 'vm.add', details }, async () => {
      const machine = await this.#machines.add(request);
      return this.show(machine.record.machineId);
    });
  }

  remove(actor: string, reference: string): Promise<void> {
    const machine = this.#inventory.home(reference);
    const { machineId } = machine.record;
    const work = async () => {
      const group = this.#groups.of(machineId);
      if (group)
        throw controlFailure('MACHINE_IN_GROUP', `${machine.record.name} is in the group ${group.name}`);
      checkUnleased(machine);
      await this.#diverged.checkNothingUpon(machineId);
      const { replica, unread } = this.#inventory.find(machineId);
      // It would be told of nothing: a machine lay upon it, and it knows an older claim.
      if (unread && machine.record.adopted) throw unread;
      await endingAdoption(replica, machine, () => this.#machines.remove(machine));
      await this.#tokens.remove((trigger) => trigger.machineId === machineId);
      this.#clearAlerts(machineId);
      // What it has heard of the right is the replica's from now on.
      if (replica) this.#fences.look(replica);
    };
    return this.#audit.acting({ actor, act: 'vm.remove', subject: machineId }, () =>
      this.#diverged.alone(machine, work),
    );
  }

  /** What the site has of a machine besides, or was at home here before, keeps what there is to say of it. */
  #clearAlerts(machineId: string): void {
    clearHomeAlerts(this.#alerts, machineId);
    if (!this.#inventory.has(machineId)) this.#alerts.clearMachine(machineId);
  }

  rename(actor: string, reference: string, name: string): Promise<MachineView> {
    return this.#act(actor, 'vm.rename', reference, { name }, (machine) =>
      this.#machines.rename(machine, name),
    );
  }

  move(actor: string, reference: string, request: MoveRequest): Promise<MachineView> {
    return this.#act(actor, 'vm.move', reference, request, (machine) =>
      this.#machines.move(machine, request),
    );
  }

  start(actor: string, reference: string): Promise<MachineView> {
    return this.#act(actor, 'vm.start', reference, {}, (machine) => this.#machines.start(machine));
  }

  stop(actor: string, reference: string, o: { force?: boolean; limitMs?: number }): Promise<MachineView> {
    const how = { force: o.force ?? false, ...(o.limitMs === undefined ? {} : { limitMs: o.limitMs }) };
    return this.#act(actor, 'vm.stop', reference, how, (machine) => this.#machines.stop(machine, how));
  }

  addDisk(actor: string, reference: string, request: AddDiskRequest): Promise<MachineView> {
    return this.#act(actor, 'vm.disk.add', reference, request, (machine) =>
      this.#machines.addDisk(machine, request),
    );
  }

  removeDisk(actor: string, reference: string, diskId: string): Promise<MachineView> {
    return this.#act(actor, 'vm.disk.remove', reference, { diskId }, (machine) =>
      this.#machines.removeDisk(machine, diskId),
    );
  }

  protect(actor: string, reference: string, request: ProtectRequest): Promise<MachineView> {
    const { siteId } = peerMeant(this.#links.views(), request.target);
    const details = { ...request, target: siteId };
    return this.#act(actor, 'vm.protect', reference, details, (machine) =>
      this.#machines.protect(machine, siteId, request),
    );
  }

  changePolicy(actor: string, reference: string, request: PolicyRequest): Promise<MachineView> {
    return this.#act(actor, 'vm.policy', reference, request, async (machine) => {
      const { machineId, protection } = machine.record;
      if (request.retention && protection) {
        this.#groups.checkRetention(machineId, protection.targetSiteId, request.retention);
      }
      await this.#machines.changePolicy(machine, request);
    });
  }

  /** Pulls a trigger of the copy policy; the copies that it asks for are made as soon as they may. */
  callTrigger(actor: string, reference: string, name: string): Promise<readonly string[]> {
    const machine = this.#inventory.home(reference);
    const act = { actor, act: 'trigger.call', subject: machine.record.machineId, details: { name } };
    return this.#audit.acting(act, async () => this.#machines.loopOf(machine).call(name));
  }

  /** Throws MACHINE_IN_GROUP: a group that silently lacks a member is none. MACHINE_LEASED. PROTECTION_FENCED: nobody has given his word. */
  unprotect(
    actor: string,
    reference: string,
    { keepOrigin = false, confirmOtherSideDown }: UnprotectRequest,
  ): Promise<MachineView> {
    const details = { keepOrigin, ...(confirmOtherSideDown ? { confirmOtherSideDown } : {}) };
    const ending = async (machine: ProtectedMachine) => {
      const { machineId, name, tenure } = machine.record;
      // Ending the protection of a fenced machine makes its disks the machine again, above every claim: another one may run.
      if (tenure?.state === 'fenced') {
        if (!confirmOtherSideDown) checkHeld(machine.record);
        checkNotOutdated(this.#inventory.find(machineId));
      }
      checkUnleased(machine);
      const group = this.#groups.of(machineId);
      if (group) throw controlFailure('MACHINE_IN_GROUP', `${name} is in the group ${group.name}`);
      await this.#diverged.checkNothingUpon(machineId);
      await this.#machines.unprotect(machine, { keepOrigin, overrules: confirmOtherSideDown === true });
    };
    return this.#act(actor, 'vm.unprotect', reference, details, (machine) =>
      this.#diverged.alone(machine, () => ending(machine)),
    );
  }

  #act(
    actor: string,
    act: string,
    reference: string,
    details: Readonly<Record<string, unknown>>,
    work: (machine: ProtectedMachine) => Promise<void>,
  ): Promise<MachineView> {
    const machine = this.#inventory.home(reference);
    const subject = machine.record.machineId;
    return this.#audit.acting({ actor, act, subject, details }, async () => {
      await work(machine);
      return this.show(subject);
    });
  }
}
