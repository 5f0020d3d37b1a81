import { join } from 'node:path';
import type {
  AddDiskRequest,
  AddMachineRequest,
  AddTargetRequest,
  ChangeTargetRequest,
  MoveRequest,
  PolicyRequest,
  ProtectRequest,
} from '../../api/index.ts';
import type { BranchNetworks, NewHome } from '../../failover/index.ts';
import { checkMachineConfiguration, type Hypervisor, type RunningMachine } from '../../hypervisor/index.ts';
import { messageOf } from '../../lib/errors.ts';
import { newId } from '../../lib/random.ts';
import { endRemoval } from '../../lib/removal.ts';
import { checkPolicy } from '../../recovery-point/index.ts';
import {
  hasEnded,
  type MachineRecord,
  ProtectedLayout,
  ProtectedMachine,
  type ProtectedTools,
  type Protection,
  protectionOf,
  type SeedExported,
  type SeedExportOptions,
  targetsOf,
  withoutTarget,
  withTarget,
  withTargetChanged,
} from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';
import { firmwareAlert, warnOfFirmware } from './firmware-alert.ts';
import { guestEnds } from './guest-end.ts';
import { checkNothingKept } from './kept-layers.ts';
import { newDisk } from './machine-disks.ts';
import { refuseAtHome, refuseSecondUuid, refuseSharedFiles, refuseTakenName } from './machine-identity.ts';
import { machinesIn, type Opened, openNewest } from './machine-opening.ts';
import { placeIn } from './machine-place.ts';
import { plugIn, unplug } from './machine-plugs.ts';
import { changedMeanwhile, checkMayGo, decideGoing, letGoOf } from './machine-removal.ts';
import { adoptedRecord, attachedRecord, managedRecord, withdrawMachine } from './new-machine.ts';
import { protectionIn } from './new-protection.ts';
import { type LoopTools, ReplicationLoop } from './replication-loop.ts';
import { schedulesIn } from './schedule-requests.ts';
import { targetChangeIn, targetIn } from './target-requests.ts';

export interface MachinesTools extends ProtectedTools {
  readonly hypervisor: Hypervisor;
  readonly loop: LoopTools;
  readonly networks: BranchNetworks;
  readonly dataDirectory: string;
  /** Before a machine is started. Throws LEASE_NOT_LENT. */
  readonly beforeStart: (machine: ProtectedMachine) => Promise<void>;
}

/** A machine at home here, and the loop that keeps it replicated while it is protected. */
export interface HomeMachine {
  readonly machine: ProtectedMachine;
  readonly loop: ReplicationLoop | undefined;
}

/** A machine whose directory could not be opened; its files are left as they are. */
export interface BrokenMachine {
  readonly machineId: string;
  readonly error: Error;
}

const STOP_LIMIT_MS = 90_000;

/** The machines that are at home at this site. One act of a person at a time changes a machine; the acts themselves see to it. */
export class Machines {
  readonly #tools: MachinesTools;
  readonly #open = new Map<string, { machine: ProtectedMachine; loop: ReplicationLoop | undefined }>();
  readonly #broken: BrokenMachine[] = [];
  /** Machines of which a seed is being written. */
  readonly #exporting = new Set<string>();

  private constructor(tools: MachinesTools) {
    this.#tools = tools;
  }

  /** Opens every machine there is and begins to replicate those that are protected. */
  static async open(tools: MachinesTools): Promise<Machines> {
    const machines = new Machines(tools);
    await tools.files.makeDirectory(join(tools.dataDirectory, 'protected'));
    for (const [machineId, generations] of await machinesIn(tools))
      machines.#have(machineId, await openNewest(tools, machineId, () => generations));
    return machines;
  }

  #have(machineId: string, opened: Opened): void {
    if (opened && 'error' in opened) this.#broken.push({ machineId, error: opened.error });
    else if (opened) this.#adopt(opened.machine);
  }

  #adopt(machine: ProtectedMachine): void {
    this.#open.set(machine.record.machineId, { machine, loop: undefined });
    this.#follow(machine);
  }

  /** Starts the loop of a machine that has none. A machine without protection is looked for as well, but not copied. */
  #follow(machine: ProtectedMachine): void {
    const entry = this.#open.get(machine.record.machineId);
    if (entry?.machine !== machine || entry.loop) return;
    entry.loop = new ReplicationLoop(machine, this.#tools.loop);
    entry.loop.start();
  }

  /** Throws MACHINE_CHANGING of one that the site has no more: the loop of what it has instead goes on. */
  async #unfollow(machine: ProtectedMachine, o: { clearAlerts?: boolean } = {}): Promise<void> {
    const entry = this.#open.get(machine.record.machineId);
    if (entry?.machine !== machine) throw changedMeanwhile(machine);
    const { loop } = entry;
    entry.loop = undefined;
    await loop?.stop(o);
  }

  list(): readonly HomeMachine[] {
    return [...this.#open.values()];
  }

  /** What runs, as far as was seen last, also on other disks than it should. */
  get running(): { readonly machineName: string; readonly configuration: unknown }[] {
    return this.list().flatMap(({ machine: { presence, record } }) =>
      presence.state === 'stopped' ? [] : [{ machineName: record.name, configuration: record.configuration }],
    );
  }

  get broken(): readonly BrokenMachine[] {
    return this.#broken;
  }

  get(machineId: string): HomeMachine | undefined {
    return this.#open.get(machineId);
  }

  /** Every loop whose target is this site, or that has to tell it something, tries again at once. */
  kick(siteId: string): void {
    for (const { machine, loop } of this.#open.values()) {
      const isTarget = machine.targets.some((target) => target.siteId === siteId);
      if (isTarget || machine.right.untold.includes(siteId)) loop?.kick();
    }
  }

  /** Lets go of all machines; they run on. */
  async close(): Promise<void> {
    await Promise.all(this.list().map(({ machine }) => this.#unfollow(machine)));
    await Promise.all(this.list().map(({ machine }) => machine.release()));
  }

  async add(request: AddMachineRequest): Promise<ProtectedMachine> {
    const machineId = newId(this.#tools.clock, this.#tools.random);
    const about = { machineId, createdAtMs: this.#tools.clock.wallMs() };
    const record =
      'attach' in request
        ? await attachedRecord(this.#tools.hypervisor, about, request.attach)
        : await managedRecord(about, request, this.#runDirectory(machineId));
    this.#refuseTwins(record, this.#records);
    const layout = new ProtectedLayout(this.#tools.dataDirectory, machineId);
    const machine = await ProtectedMachine.create(this.#tools, layout, record);
    await machine.attach();
    this.#adopt(machine);
    return machine;
  }

  #refuseTwins(record: MachineRecord, others: readonly MachineRecord[]): void {
    refuseSharedFiles(record.disks, others);
    refuseTakenName(record.name, others);
    refuseSecondUuid(record, others);
  }

  /** Takes branches of replicas in as machines; one that was at home here before, and has ended, stays as it is beside the new one. */
  get adopting(): NewHome<ProtectedMachine> {
    return {
      check: (adopted) => this.#checkAdopted(adoptedRecord(adopted, this.#tools.clock.wallMs())),
      create: async (adopted) => {
        const record = adoptedRecord(adopted, this.#tools.clock.wallMs());
        this.#checkAdopted(record);
        return this.#takeIn(record);
      },
    };
  }

  #checkAdopted(record: MachineRecord): void {
    const { machineId } = record;
    const broken = this.#broken.find((one) => one.machineId === machineId);
    if (broken) throw broken.error;
    const before = this.#open.get(machineId)?.machine;
    if (before) refuseAtHome(before);
    this.#refuseTwins(
      record,
      this.#records.filter((other) => other.machineId !== machineId),
    );
  }

  async #takeIn(record: MachineRecord): Promise<ProtectedMachine> {
    const { files, dataDirectory } = this.#tools;
    const { machineId, epoch } = record;
    const layout = new ProtectedLayout(dataDirectory, machineId, epoch);
    let machine: ProtectedMachine;
    try {
      machine = await ProtectedMachine.create(this.#tools, layout, record);
    } catch (error) {
      // What is left then decides when the site starts again; why there is no machine now is what is told.
      await withdrawMachine(files, layout).catch((failure: unknown) =>
        this.#tools.log.error('machine.not-removed', { machineId, reason: messageOf(failure) }),
      );
      throw error;
    }
    const before = this.#open.get(machineId)?.machine;
    if (before) {
      // It has ended, and is the machine no more: what goes wrong with letting go of it hinders nothing.
      const letGo = async () => {
        await this.#unfollow(before, { clearAlerts: true });
        await before.release();
        await unplug(this.#tools.networks, before.record);
      };
      const left = letGo();
      await left.catch((error: unknown) =>
        this.#tools.log.warn('machine.not-released', { machineId, reason: messageOf(error) }),
      );
    }
    await machine.attach();
    this.#adopt(machine);
    return machine;
  }

  get #records(): MachineRecord[] {
    return [...this.#open.values()].map(({ machine }) => machine.record);
  }

  /** Calls a machine something else. Its points so far keep the old name; the recovery sites hear of the new one with the next copy. */
  async rename(machine: ProtectedMachine, name: string): Promise<void> {
    if (name === machine.record.name) return;
    checkMachineConfiguration({ ...machine.record.configuration, name });
    refuseTakenName(name, this.#records);
    await machine.rename(name);
  }

  /** From now on the machine is found elsewhere, with the same disks; a transfer under way is broken off and gone on with. */
  async move(machine: ProtectedMachine, request: MoveRequest): Promise<void> {
    const { place, disks } = placeIn(machine.record, request);
    refuseSharedFiles(disks, this.#records);
    this.#refuseWhileExporting(machine);
    await this.#unfollow(machine);
    try {
      await machine.move(place);
    } finally {
      this.#follow(machine);
    }
  }

  /** What a seed that is being written is read from must stay as it is. */
  #refuseWhileExporting({ record: { machineId, name } }: ProtectedMachine): void {
    if (!this.#exporting.has(machineId)) return;
    throw controlFailure('MACHINE_CHANGING', `a seed of ${name} is being exported`, {
      context: { machineId },
      hint: 'Wait until it has been written, or end it with `warmsite job cancel`.',
    });
  }

  /** Takes a disk into the machine; a protected one has it from its next copy on, which is asked for at once. */
  async addDisk(machine: ProtectedMachine, request: AddDiskRequest): Promise<void> {
    const { state } = await machine.attach();
    if (state === 'stale' || state === 'unreachable') {
      const said = `${machine.record.name} is ${state}: which disks it has is not known`;
      throw controlFailure('MACHINE_DISK_UNCLEAR', said, { hint: 'See to that first: `warmsite vm show`.' });
    }
    const added = await newDisk(machine.record, machine.running, request);
    checkMachineConfiguration({
      ...machine.record.configuration,
      disks: [...machine.record.configuration.disks, added.configuration],
    });
    refuseSharedFiles([added.disk], this.#records);
    await machine.addDisk(added);
    this.#open.get(machine.record.machineId)?.loop?.kick();
  }

  /** Takes a disk out of the machine; a protected one has no copy with it from the next one on, which is asked for at once. */
  async removeDisk(machine: ProtectedMachine, diskId: string): Promise<void> {
    await machine.removeDisk(diskId);
    this.#open.get(machine.record.machineId)?.loop?.kick();
  }

  /** Forgets a machine that is not protected; its process and its disks stay as they are. Throws MACHINE_LAYERS_KEPT, and as `checkMayGo`. */
  async remove(machine: ProtectedMachine): Promise<void> {
    const { files, loop } = this.#tools;
    const check = () => checkMayGo(machine, loop.target);
    await machine.attach();
    check();
    await checkNothingKept(files, machine);
    await this.#unfollow(machine, { clearAlerts: true });
    let left: ReplicationLoop | undefined;
    try {
      // Beside no other change of it: nobody starts it meanwhile, or protects it afterwards.
      await machine.right.letGo(changedMeanwhile(machine), async () => {
        check();
        await letGoOf(this.#tools, machine, hasEnded(machine));
        await files.removeDirectory(machine.layout.directory);
        // Only now: what hinders its end leaves it to be removed once more.
        left = await this.#strike(machine);
      });
    } catch (error) {
      // It is looked after until then: it may run, and another site may take it.
      this.#follow(machine);
      throw error;
    }
    await left?.stop({ clearAlerts: true });
  }

  /**
   * What was at home here before is shown again, and may be removed in its turn. One takes the place of the other: there is no moment in which
   * the site has neither. What follows the machine again, because somebody wanted to move it meanwhile, is to be stopped; not before the machine
   * has been let go, as it may be just looking.
   */
  async #strike(machine: ProtectedMachine): Promise<ReplicationLoop | undefined> {
    const { machineId } = machine.record;
    const entry = this.#open.get(machineId);
    if (entry?.machine !== machine) return undefined;
    const left = async () => (await machinesIn(this.#tools)).get(machineId) ?? [];
    const before = await openNewest(this.#tools, machineId, left);
    if (this.#open.get(machineId) !== entry) return undefined;
    this.#open.delete(machineId);
    this.#tools.loop.identities.forget(machineId);
    this.#have(machineId, before);
    return entry.loop;
  }

  /**
   * Removes a machine that another site holds, with what was written in its layers; files that its owner had before stay. Once that has
   * been decided it is none of this site's, whatever keeps its files from going: the next process ends that then.
   */
  async discard(machine: ProtectedMachine, check: () => void): Promise<void> {
    await this.#unfollow(machine, { clearAlerts: true });
    try {
      await decideGoing(this.#tools, machine, check);
    } catch (error) {
      this.#follow(machine);
      throw error;
    }
    const left = await this.#strike(machine);
    await left?.stop({ clearAlerts: true });
    await endRemoval(this.#tools.files, machine.layout.directory);
  }

  /** Sockets and logs of a managed machine. */
  #runDirectory(machineId: string): string {
    return join(this.#tools.dataDirectory, 'run', machineId);
  }

  async start(machine: ProtectedMachine): Promise<void> {
    if (machine.record.kind !== 'managed') {
      throw controlFailure('MACHINE_NOT_MANAGED', `${machine.record.name} is not started by this site`);
    }
    if ((await machine.attach()).state === 'stopped') await this.#tools.beforeStart(machine);
    await machine.start(async () => {
      // It may have waited for the end of its removal: nobody would look after its guest.
      if (this.get(machine.record.machineId)?.machine !== machine) throw changedMeanwhile(machine);
      return plugIn(this.#tools.networks, machine.record);
    });
    this.#open.get(machine.record.machineId)?.loop?.kick();
  }

  /** Asks the guest to shut down and waits until its process has gone; `force` ends it as pulling the plug would. */
  async stop(
    machine: ProtectedMachine,
    o: { force: boolean; limitMs?: number; signal?: AbortSignal },
  ): Promise<void> {
    await machine.attach();
    const { running } = machine;
    if (!running) return;
    if (o.force) await running.quit();
    else await this.#askToEnd(machine, running, o);
    await unplug(this.#tools.networks, machine.record);
  }

  async #askToEnd(
    machine: ProtectedMachine,
    running: RunningMachine,
    o: { limitMs?: number; signal?: AbortSignal },
  ): Promise<void> {
    const limitMs = o.limitMs ?? STOP_LIMIT_MS;
    if (await guestEnds(this.#tools, running, limitMs, o.signal)) return;
    const said = `${machine.record.name} has not shut down within ${limitMs / 1000} s`;
    throw controlFailure('MACHINE_STOP_TIMEOUT', said, { context: { limitMs } });
  }

  async protect(machine: ProtectedMachine, targetSiteId: string, request: ProtectRequest): Promise<void> {
    const protection = protectionIn(targetSiteId, request);
    this.#check(protection);
    await machine.protect(protection, { seed: request.seed ?? false });
    warnOfFirmware(this.#tools.loop.alerts, machine.record);
    this.#open.get(machine.record.machineId)?.loop?.kick();
  }

  async changePolicy(machine: ProtectedMachine, request: PolicyRequest): Promise<void> {
    const { copyTypes, blackouts, freezeLimitMs } = request;
    const schedules = schedulesIn(request);
    const change = {
      ...(schedules ? { schedules } : {}),
      ...(copyTypes ? { copyTypes } : {}),
      ...(blackouts ? { blackouts } : {}),
      ...(freezeLimitMs === undefined ? {} : { freezeLimitMs }),
      ...targetChangeIn(request),
    };
    const { protection } = machine.record;
    if (protection) this.#check({ ...protection, ...change } as Protection);
    await machine.changeProtection(change);
    this.#open.get(machine.record.machineId)?.loop?.kick();
  }

  /** What is not said of the new target is as for the first one, but for its limits. */
  async addTarget(machine: ProtectedMachine, siteId: string, request: AddTargetRequest): Promise<void> {
    const { protection } = machine.record;
    if (protection) this.#check(withTarget(protection, targetIn(siteId, request, protection)));
    await machine.addTarget(targetIn(siteId, request, protection), { seed: request.seed ?? false });
    this.#open.get(machine.record.machineId)?.loop?.kick();
  }

  async changeTarget(machine: ProtectedMachine, siteId: string, request: ChangeTargetRequest): Promise<void> {
    const change = targetChangeIn(request);
    await machine.protectAs((protection) => {
      const changed = withTargetChanged(protection, siteId, change);
      this.#check(changed);
      return changed;
    });
    this.#open.get(machine.record.machineId)?.loop?.kick();
  }

  async removeTarget(machine: ProtectedMachine, siteId: string): Promise<void> {
    const { protection } = machine.record;
    if (protection) withoutTarget(protection, siteId);
    const loop = this.loopOf(machine);
    // A transfer under way would be waited for.
    await loop.stopSending(siteId);
    try {
      await machine.removeTarget(siteId);
    } finally {
      loop.kick();
    }
  }

  /** Throws for a copy type that the machine does not have, or of which its policy would keep none. */
  checkCopies(machine: ProtectedMachine, copyType: string): void {
    const protection = protectionOf(machine.record);
    this.#check({ ...protection, schedules: [{ copyType, triggers: [{ kind: 'call', name: 'token' }] }] });
  }

  #check(protection: Protection): void {
    for (const target of targetsOf(protection)) {
      checkPolicy({ ...protection, ...target }, this.#tools.clock.wallMs(), this.#tools.loop.zones);
    }
  }

  /** Writes the base of a machine for a courier; copies made meanwhile are sent when it is done. */
  async exportSeed(
    machine: ProtectedMachine,
    path: string,
    o: SeedExportOptions & { readonly siteId?: string | undefined },
  ): Promise<SeedExported> {
    const { machineId } = machine.record;
    const loop = this.loopOf(machine);
    this.#exporting.add(machineId);
    try {
      return await machine.exportSeed(this.#tools.loop.target, path, o);
    } finally {
      this.#exporting.delete(machineId);
      loop.kick();
    }
  }

  /** `overrules`: by somebody's word, what has fenced the machine. */
  async unprotect(machine: ProtectedMachine, { keepOrigin = false, overrules = false } = {}): Promise<void> {
    const { machineId } = machine.record;
    this.#refuseWhileExporting(machine);
    // A transfer under way would be waited for; its part at the other side stays and may be thrown away there.
    await this.#unfollow(machine, { clearAlerts: true });
    try {
      const word = { overrules };
      await (keepOrigin ? machine.unprotectKeepingOrigin(word) : machine.unprotect(word));
      this.#tools.loop.alerts.clear(firmwareAlert(machineId));
    } finally {
      this.#follow(machine);
    }
  }

  /** The loop of a machine. Throws MACHINE_CHANGING while its protection is being ended. */
  loopOf(machine: ProtectedMachine): ReplicationLoop {
    const loop = this.#open.get(machine.record.machineId)?.loop;
    if (loop) return loop;
    throw controlFailure('MACHINE_CHANGING', `the protection of ${machine.record.name} is being ended`);
  }
}
