import type { Hypervisor, ImageFile, MachineEvent, RunningMachine } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import type { KeptRecord } from '../lib/kept-record.ts';
import { Mutex } from '../lib/mutex.ts';
import { type Claim, copyTypeOf } from '../recovery-point/index.ts';
import { happened, type Plugging, startRequestOf } from './chain.ts';
import type { CutTogether } from './cut-together.ts';
import { Deliveries, type TargetProgress } from './deliveries.ts';
import type { Delivery, DeliveryTools, ReplicateOutcome } from './delivery.ts';
import { checkRunsOn, type NewDisk, withDisk } from './disk-changes.ts';
import { hasUncutChanges } from './disk-sizes.ts';
import { type DissolutionGround, dissolve, inPhase, whyNotDissolved } from './dissolving.ts';
import { checkGivenUp, isCertainlyStopped, mayRunOnLayers } from './image-locks.ts';
import type { ProtectedLayout } from './layout.ts';
import { giveBack, reconciledWithout, removeFormer, takenOut } from './leaving-disks.ts';
import { endLeftBehind } from './left-behind.ts';
import { createMachineFiles, keptMachine, openMachineFiles } from './machine-files.ts';
import { type MachinePlace, type MoveGround, moveMachine } from './machine-move.ts';
import { checkHealthy, type MachinePresence, mustBeLookedAt, presenceOf } from './machine-presence.ts';
import { MachineProcess } from './machine-process.ts';
import { MachineRight } from './machine-right.ts';
import { checkHeld, checkMaySend, checkNotOffered, claimElsewhere, unprotected } from './machine-tenure.ts';
import { renamed } from './names.ts';
import { ProtectedChain } from './protected-chain.ts';
import type { CutRecord, MachineRecord, Protection, TargetPolicy, TargetRecord } from './records.ts';
import type { SeedExported, SeedExportOptions } from './seed-export.ts';
import { clearSuspicion, watchingForStaleBase } from './stale-base.ts';
import type { ReplicationTarget } from './target.ts';
import { checkNotEnding, checkUnprotected, protectionOf, withoutTarget, withTarget } from './targets.ts';

export interface ProtectedTools extends DeliveryTools {
  readonly hypervisor: Hypervisor;
}

/**
 * A machine of this site and its protection: its process, its chain and how far its targets are. Cuts, merges and the
 * like exclude each other; deltas are read and sent beside them, to every target one at a time, because what they read is
 * sealed.
 */
export class ProtectedMachine {
  readonly layout: ProtectedLayout;
  readonly #tools: ProtectedTools;
  readonly #chain: ProtectedChain;
  readonly #changing = new Mutex();
  readonly #process = new MachineProcess();
  /** The right of this site to run the machine. */
  readonly right: MachineRight;
  readonly #kept: KeptRecord<MachineRecord>;
  #deliveries!: Deliveries;
  /** It was found stopped, and what was left half done has been ended. */
  #isSettledStopped = false;

  private constructor(
    tools: ProtectedTools,
    layout: ProtectedLayout,
    chain: ProtectedChain,
    record: MachineRecord,
  ) {
    this.#tools = tools;
    this.layout = layout;
    this.#chain = chain;
    this.#kept = keptMachine(tools, layout, record);
    this.right = new MachineRight({
      ...{ siteId: tools.siteId, clock: tools.clock, close: (reason) => this.#changing.close(reason) },
      alone: (work) => this.#changing.run(work),
      attach: () => this.#attach(),
      hasUncutChanges: () => this.hasUncutChanges(),
      ground: () => ({ ...this.#ground, kept: this.#kept }),
    });
  }

  static async create(
    tools: ProtectedTools,
    layout: ProtectedLayout,
    record: MachineRecord,
  ): Promise<ProtectedMachine> {
    await createMachineFiles(tools.files, layout, record);
    return ProtectedMachine.open(tools, layout);
  }

  /** Opens a machine from its directory. Whether its process runs is not known before `attach`. */
  static async open(tools: ProtectedTools, layout: ProtectedLayout): Promise<ProtectedMachine> {
    const record = await openMachineFiles(tools.files, layout);
    const chain = await ProtectedChain.open(tools, layout, record);
    const machine = new ProtectedMachine(tools, layout, chain, record);
    const ground = {
      ...{ tools, layout, delivered: () => ({ record: machine.record, cuts: chain.cuts }) },
      alone: <T>(work: () => Promise<T>) => machine.#changing.run(work),
      heard: (claim: Claim) => machine.right.hear(claim),
    };
    machine.#deliveries = await Deliveries.open(ground, record.protection);
    return machine;
  }

  get record(): MachineRecord {
    return this.#kept.now;
  }

  get presence(): MachinePresence {
    return this.#process.presence;
  }

  get cuts(): readonly CutRecord[] {
    return this.#chain.cuts;
  }

  /** How far the targets are, the first one first; none while the machine is not protected. */
  get targets(): readonly TargetProgress[] {
    return this.#deliveries.progress;
  }

  /** How far the first target is; null while the machine is not protected. */
  get target(): TargetRecord | null {
    return this.targets[0]?.record ?? null;
  }

  /** The process of the machine, where it is attached. */
  get running(): RunningMachine | undefined {
    return this.#process.running;
  }

  chain(diskId: string): ImageFile[] {
    return this.#chain.chain(diskId);
  }

  /**
   * Events of the hypervisor, and four of our own: WARMSITE_GONE, the process has ended or let go of us; WARMSITE_THAWED, the guest was found
   * left frozen and has been thawed; WARMSITE_LEFT_FROZEN, that could not be done, for `data.error`; WARMSITE_TENURE, its tenure has changed.
   */
  onEvent(listener: (event: MachineEvent) => void): () => void {
    return this.#process.onEvent(listener);
  }

  /**
   * Finds out whether the machine's process runs and on what, and ends what an earlier process of ours left half done.
   * Never throws for the state that the machine is in: that is what `presence` tells.
   */
  attach(): Promise<MachinePresence> {
    return this.#changing.run(() => this.#attach());
  }

  /** As `attach`, for asking often: of a stopped machine only the socket is tried. Tells whether the guest stands still, too. */
  look(): Promise<MachinePresence> {
    return this.#changing.run(async () => {
      await this.#attach(!this.#isSettledStopped);
      return this.#process.lookAtGuest(this.record);
    });
  }

  /** Continues a guest that stands still for lack of space, and no other one. Whether it did. */
  continueGuest(): Promise<boolean> {
    return this.#changing.run(() => this.#process.continueGuest(this.record));
  }

  async #attach(isThorough = true): Promise<MachinePresence> {
    if (this.#process.running && !(await mustBeLookedAt(this.record, this.cuts, this.#process.running)))
      return this.#process.presence;
    try {
      if (this.#process.running) this.#process.presence = presenceOf(this.#process.running);
      else await this.#connect();
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#process.presence =
        error.code === 'MACHINE_NOT_RUNNING'
          ? { state: 'stopped' }
          : { state: 'unreachable', reason: error.message };
      if (this.#process.presence.state !== 'stopped' || !isThorough) return this.#process.presence;
    }
    await this.#settleInterrupted();
    this.#isSettledStopped = this.#process.presence.state === 'stopped';
    return this.#process.presence;
  }

  async #connect(): Promise<void> {
    const running = await this.#tools.hypervisor.attach(this.record.sockets);
    this.#adopt(running);
    const { log } = this.#tools;
    void endLeftBehind(log, this.record.name, this.#chain, running, (event) => this.#process.tell(event));
  }

  #adopt(running: RunningMachine): void {
    this.#isSettledStopped = false;
    this.#process.adopt(running);
  }

  async #settleInterrupted(): Promise<void> {
    if (this.record.dissolving) {
      const mayRun = () => this.#mayRunOnLayers();
      const reason = await whyNotDissolved(this.#ground, this.#process.running, mayRun);
      if (reason === undefined) await this.#dissolve();
      else this.#process.presence = { state: 'stale', reason };
      return;
    }
    if (!this.record.protection) return;
    try {
      await watchingForStaleBase(this.#ground, async () => {
        if (
          !this.#process.running &&
          !(await isCertainlyStopped(this.#tools, this.record.disks, this.#chain))
        ) {
          const reason = 'its disks are in use, but its QMP socket does not answer';
          this.#process.presence = { state: 'unreachable', reason };
          return;
        }
        await this.#chain.reconcile(this.#process.running);
        await clearSuspicion(this.#ground);
        await this.#giveBack();
      });
    } catch (error) {
      if (!isFailure(error, 'PROTECTION_STALE_BASE', 'PROTECTION_DISK_GONE')) throw error;
    }
  }

  async #giveBack(): Promise<void> {
    if (this.#process.running) return;
    const given = await giveBack(this.#tools, this.record, this.#deliveries.acknowledgedByAll);
    if (given !== this.record) await this.#storeDisks(given);
    await removeFormer(this.#tools, this.layout, this.record);
  }

  /** Whether a process may write to the layers; one that is not to be reached or does not say what it has may. */
  async #mayRunOnLayers(): Promise<boolean> {
    if (this.#process.presence.state === 'unreachable') return true;
    const { disks } = this.record;
    return mayRunOnLayers(this.#tools, this.layout, disks, this.#chain, this.#process.running);
  }

  /** Starts a managed machine on its chain; its process outlives ours. */
  start(plug?: Plugging): Promise<void> {
    return this.#changing.run(async () => {
      if ((await this.#attach()).state !== 'stopped') return;
      checkHeld(this.record);
      await this.#kept.settle();
      const request = startRequestOf(this.record, this.cuts, await plug?.());
      await this.#tools.files.makeDirectory(request.runDirectory);
      this.#adopt(await this.#tools.hypervisor.start(request));
    });
  }

  /** Begins to protect the machine. The first cut seals the owner's own files. */
  protect(protection: Protection, o: { readonly seed: boolean } = { seed: false }): Promise<void> {
    return this.#changing.run(async () => {
      checkUnprotected(this.record);
      checkHeld(this.record);
      await this.#deliveries.beginAll(protection, o);
      await this.#kept.store({ ...this.record, protection });
    });
  }

  /** Replicates the machine to one more site from now on. Throws PROTECTION_TARGET_EXISTS, PROTECTION_TARGETS_TOO_MANY. */
  addTarget(policy: TargetPolicy, o: { readonly seed: boolean } = { seed: false }): Promise<void> {
    return this.#changing.run(async () => {
      const protection = withTarget(this.#needProtection(), policy);
      await this.#deliveries.begin(policy.siteId, { ...o, ownLeaves: true });
      await this.#kept.store({ ...this.record, protection });
    });
  }

  /**
   * Ends the replication to one of several sites and lets go of what was kept for it. The points there stay. A delta on its
   * way is waited for. Throws PROTECTION_TARGET_UNKNOWN, PROTECTION_TARGET_LAST.
   */
  async removeTarget(siteId: string): Promise<void> {
    await this.#deliveries.need(siteId).sending.run(() =>
      this.#changing.run(async () => {
        checkNotOffered(this.record, siteId);
        const protection = withoutTarget(this.#needProtection(), siteId);
        await this.#kept.store({ ...this.record, protection });
        await this.#deliveries.remove(siteId);
      }),
    );
    await this.#settle();
  }

  /**
   * Ends the protection: the owner's files hold everything again, and the machine, if it runs, writes to them. The replica
   * stays at its site. `overrules`: a fenced machine is this site's again; without it it stays fenced.
   */
  unprotect({ overrules = false } = {}): Promise<void> {
    return this.#deliveries.stillFor(() =>
      this.#changing.run(async () => {
        await this.#attach();
        checkHealthy(this.record, this.#process.presence);
        // One that was interrupted has been ended by looking at the machine.
        if (!this.record.protection) return this.#kept.decide(unprotected(this.record, overrules));
        checkNotOffered(this.record);
        await this.#kept.store(inPhase(this.record, 'committing'));
        await this.#dissolve(overrules);
      }),
    );
  }

  /**
   * The way out of a stale base: ends the protection in favour of what the owner's files hold now. Nothing is committed into
   * them; the layers are kept in `set-aside-<cut>/`.
   */
  unprotectKeepingOrigin({ overrules = false } = {}): Promise<void> {
    return this.#deliveries.stillFor(() =>
      this.#changing.run(async () => {
        await this.#attach();
        checkNotOffered(this.record);
        const mayBeWritten = await this.#mayRunOnLayers();
        checkGivenUp(this.record, { mayBeWritten, overrules, presence: this.#process.presence });
        await this.#kept.store(inPhase(this.record, 'setting-aside'));
        await this.#dissolve(overrules);
      }),
    );
  }

  get #ground(): DissolutionGround & MoveGround {
    const ground = { tools: this.#tools, layout: this.layout, chain: this.#chain, process: this.#process };
    const store = (record: MachineRecord) => this.#kept.store(record);
    const storeDisks = (record: MachineRecord) => this.#storeDisks(record);
    return { ...ground, deliveries: this.#deliveries, record: () => this.record, store, storeDisks };
  }

  async #dissolve(overrules = false): Promise<void> {
    await dissolve(this.#ground, this.#process.running, overrules);
    this.#process.recover();
  }

  /**
   * Takes a disk in that the machine has got: the next copy is the first one with it, and brings it whole beside the
   * differences of the others. Nothing is copied by this. Throws PROTECTION_DISK_TAKEN, PROTECTION_STALE_BASE.
   */
  addDisk(added: NewDisk): Promise<void> {
    return this.#changing.run(async () => {
      await this.#attach();
      this.#needHealthy();
      if (this.#process.running) await checkRunsOn(this.#process.running, added);
      if (this.record.protection)
        await watchingForStaleBase(this.#ground, () => this.#chain.reconcile(this.#process.running));
      await this.#storeDisks(withDisk(this.record, this.cuts, added));
    });
  }

  /**
   * Takes a disk out, also one that is gone: the next copy does not have it. Its owner's file holds everything again when a
   * copy without it has been acknowledged and the machine is off. Throws PROTECTION_DISK_UNKNOWN, PROTECTION_DISK_LAST, PROTECTION_STALE_BASE.
   */
  removeDisk(diskId: string): Promise<void> {
    return this.#changing.run(async () => {
      await this.#attach();
      if (!this.record.gone?.includes(diskId)) this.#needHealthy();
      const acknowledgedOrdinal = this.#deliveries.acknowledgedByAll;
      const o = { acknowledgedOrdinal, isRunning: this.#process.running !== undefined };
      if (this.record.protection) await reconciledWithout(this.#chain, this.#process.running);
      await this.#storeDisks(await takenOut(this.#tools, this.#chain, this.record, diskId, o));
      this.#isSettledStopped = false;
      if (this.#process.presence.state === 'stale')
        this.#process.presence = presenceOf(this.#process.running);
      await this.#settleInterrupted();
    });
  }

  /** Makes a copy of the given type, or its part of one of several machines. Throws COPY_TYPE_UNKNOWN, CUT_FAILED; nothing has changed then. */
  cut(copyType: string, together?: CutTogether): Promise<CutRecord> {
    return this.#changing.run(async () => {
      const protection = this.#needProtection();
      const type = copyTypeOf(copyType, protection.copyTypes ?? []);
      // Without a connection the machine may have been started meanwhile, or only the connection may have been lost.
      await this.#attach();
      this.#needHealthy();
      const cut = await watchingForStaleBase(this.#ground, () =>
        this.#chain.cut(type, protection.freezeLimitMs, this.#process.running, together),
      );
      await this.#compact();
      return cut;
    });
  }

  /** Keeps the chain short; housekeeping as `settle`. */
  #compact(): Promise<void> {
    return this.#tried('chain.compact-failed', () =>
      this.#chain.compact(this.#deliveries.places, this.#process.running),
    );
  }

  /** Whether a copy would be another one than the last; for a machine that does not run. */
  hasUncutChanges(): Promise<boolean> {
    return hasUncutChanges(this.#tools.images, this.record.disks, this.cuts);
  }

  /**
   * Brings one target one point further, if there is one to send, and merges here what none needs any more. Throws
   * REPLICATION_CONFLICT with the evidence, PROTECTION_TARGET_UNKNOWN; failures of the connection are the caller's to repeat.
   */
  replicate(target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome> {
    return this.#sendingTo(target.siteId, signal, async (delivery) => {
      const outcome = await delivery.deliver(target, signal);
      if (outcome.kind === 'nothing') await this.right.offerTo(target, signal);
      await this.#settle();
      return outcome;
    });
  }

  async #sendingTo<T>(
    siteId: string,
    signal: AbortSignal | undefined,
    work: (delivery: Delivery) => Promise<T>,
  ): Promise<T> {
    this.#needProtection();
    return this.#deliveries.need(siteId).sending.run(async () => {
      this.#needProtection();
      checkMaySend(this.record);
      await this.right.settle();
      this.#needSound();
      throwIfAborted(signal);
      return work(this.#deliveries.need(siteId));
    });
  }

  /** Writes the base for a courier, see `Delivery`: for the first target if none is named. Nothing is sent there meanwhile. */
  async exportSeed(
    target: (siteId: string) => ReplicationTarget,
    path: string,
    o: SeedExportOptions & { readonly siteId?: string | undefined } = {},
  ): Promise<SeedExported> {
    const { siteId = this.#needProtection().targetSiteId, signal } = o;
    await this.#deliveries.need(siteId).preferSeed();
    if (happened(this.cuts).length === 0) await this.cut('crash');
    return this.#sendingTo(siteId, signal, (delivery) => delivery.exportSeed(() => target(siteId), path, o));
  }

  /** Removes what a cancelled export has left. */
  dropSeed(path: string, siteId = this.#needProtection().targetSiteId): Promise<void> {
    return this.#deliveries.need(siteId).dropSeed(path);
  }

  #settle(): Promise<void> {
    return this.#changing.run(() =>
      this.#tried('chain.merge-failed', async () => {
        if (claimElsewhere(this.record)) return;
        await this.#attach();
        this.#needHealthy();
        await this.#deliveries.recordOutrun();
        await this.#chain.merge(this.#deliveries.places, this.#process.running);
        await this.#giveBack();
        // A layer that an interrupted compaction has left absorbing cannot be sent before that has ended.
        await this.#compact();
      }),
    );
  }

  /** Housekeeping: a failure is reported and the work tried again at the next occasion; what came before stands. */
  async #tried(event: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#tools.log.warn(event, { machine: this.record.name, reason: messageOf(error) });
    }
  }

  /** From now on it is found, and its owner's files lie, elsewhere; nothing is sent anew. Throws as `moveMachine`. */
  move(place: MachinePlace): Promise<void> {
    return this.#deliveries.stillFor(() => this.#changing.run(() => moveMachine(this.#ground, place)));
  }

  /** Calls the machine something else from its next cut on. */
  rename(name: string): Promise<void> {
    return this.#changing.run(() => this.#kept.store(renamed(this.record, this.cuts, name)));
  }

  /** Changes schedules and the like, and what the first target gets. */
  changeProtection(change: Partial<Omit<Protection, 'targetSiteId' | 'furtherTargets'>>): Promise<void> {
    return this.protectAs((protection) => ({ ...protection, ...change }));
  }

  /** Changes the protection in whatever way, but for which targets there are. */
  protectAs(changed: (protection: Protection) => Protection): Promise<void> {
    return this.#changing.run(async () => {
      await this.#kept.store({ ...this.record, protection: changed(this.#needProtection()) });
    });
  }

  #needProtection(): Protection {
    return protectionOf(this.record);
  }

  #needHealthy(): void {
    checkHeld(this.record);
    this.#needSound();
  }

  #needSound(): void {
    checkNotEnding(this.record);
    checkHealthy(this.record, this.#process.presence);
  }

  async #storeDisks(record: MachineRecord): Promise<void> {
    await this.#kept.store(record);
    this.#chain.haveDisksOf(record);
  }

  /** Lets go of the machine; it runs on. */
  async release(): Promise<void> {
    await this.#process.release();
  }
}
