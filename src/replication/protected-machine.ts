import { dirname } from 'node:path';
import type { Hypervisor, ImageFile, MachineEvent, RunningMachine } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { Mutex } from '../lib/mutex.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { copyTypeOf } from '../recovery-point/index.ts';
import { happened, isThereAt, sizeAt } from './chain.ts';
import type { CutTogether } from './cut-together.ts';
import { type Delivered, Delivery, type DeliveryTools, type ReplicateOutcome } from './delivery.ts';
import { checkRunsOn, type NewDisk, ofOneAge, withDisk } from './disk-changes.ts';
import { replicationFailure } from './errors.ts';
import { isCertainlyStopped, mayRunOnLayers } from './image-locks.ts';
import type { ProtectedLayout } from './layout.ts';
import { endLeftBehind } from './left-behind.ts';
import { type MachinePresence, presenceOf } from './machine-presence.ts';
import { ProtectedChain } from './protected-chain.ts';
import {
  type CutRecord,
  MACHINE_RECORD,
  type MachineRecord,
  machineKind,
  type Protection,
  type TargetRecord,
} from './records.ts';
import type { SeedExported, SeedExportOptions } from './seed-export.ts';
import type { SendProgress } from './send-session.ts';
import type { ReplicationTarget } from './target.ts';

export interface ProtectedTools extends DeliveryTools {
  readonly hypervisor: Hypervisor;
}

/**
 * A machine of this site and its protection: its process, its chain and how far its target is. Cuts, merges and the
 * like exclude each other; a delta is read and sent beside them, because what it reads is sealed.
 */
export class ProtectedMachine {
  readonly layout: ProtectedLayout;
  readonly #tools: ProtectedTools;
  readonly #chain: ProtectedChain;
  readonly #changing = new Mutex();
  readonly #sending = new Mutex();
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  #record: MachineRecord;
  /** How far the target is; null while the machine is not protected. */
  #delivery: Delivery | null;
  #running: RunningMachine | undefined;
  #presence: MachinePresence = { state: 'stopped' };
  /** It was found stopped, and what was left half done has been ended. */
  #isSettledStopped = false;

  private constructor(o: {
    layout: ProtectedLayout;
    tools: ProtectedTools;
    chain: ProtectedChain;
    record: MachineRecord;
    delivery: Delivery | null;
  }) {
    this.layout = o.layout;
    this.#tools = o.tools;
    this.#chain = o.chain;
    this.#record = o.record;
    this.#delivery = o.delivery;
  }

  static async create(
    tools: ProtectedTools,
    layout: ProtectedLayout,
    record: MachineRecord,
  ): Promise<ProtectedMachine> {
    const { files } = tools;
    await files.makeDirectory(layout.targets);
    await storeRecord(files, layout.record, machineKind(record), record);
    await files.syncDirectory(dirname(layout.directory));
    return ProtectedMachine.open(tools, layout);
  }

  /** Opens a machine from its directory. Whether its process runs is not known before `attach`. */
  static async open(tools: ProtectedTools, layout: ProtectedLayout): Promise<ProtectedMachine> {
    const record = await loadRecord(tools.files, layout.record, MACHINE_RECORD);
    if (!record)
      throw replicationFailure('PROTECTION_MACHINE_UNKNOWN', `there is no machine in ${layout.directory}`);
    const chain = await ProtectedChain.open(tools, layout, record.disks);
    // As with the cuts: layers are merged on the word of these records.
    await tools.files.makeDirectory(layout.targets);
    await tools.files.syncDirectory(layout.targets);
    await tools.files.syncDirectory(layout.directory);
    const siteId = record.protection?.targetSiteId;
    const machine: ProtectedMachine = new ProtectedMachine({
      ...{ layout, tools, chain, record },
      delivery: siteId ? await Delivery.open(tools, layout, siteId, () => machine.#delivered) : null,
    });
    return machine;
  }

  get record(): MachineRecord {
    return this.#record;
  }

  get presence(): MachinePresence {
    return this.#presence;
  }

  get cuts(): readonly CutRecord[] {
    return this.#chain.cuts;
  }

  get target(): TargetRecord | null {
    return this.#delivery?.record ?? null;
  }

  /** What a delivery looks at: the machine as it is at that moment. */
  get #delivered(): Delivered {
    return { record: this.#record, cuts: this.#chain.cuts };
  }

  /** The delta that is being sent right now. */
  get sendProgress(): SendProgress | undefined {
    return this.#delivery?.progress;
  }

  /** The process of the machine, where it is attached. */
  get running(): RunningMachine | undefined {
    return this.#running;
  }

  chain(diskId: string): ImageFile[] {
    return this.#chain.chain(diskId);
  }

  /**
   * Events of the hypervisor, and three of our own: WARMSITE_GONE, the process has ended or let go of us; WARMSITE_THAWED, the
   * guest was found left frozen and has been thawed; WARMSITE_LEFT_FROZEN, that could not be done, for `data.error`.
   */
  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Finds out whether the machine's process runs and on what, and ends what an earlier process of ours left half done.
   * Never throws for the state that the machine is in: that is what `presence` tells.
   */
  attach(): Promise<MachinePresence> {
    return this.#changing.run(() => this.#attach());
  }

  /** As `attach`, for asking often: where a stopped machine was found before, only its socket is tried. */
  look(): Promise<MachinePresence> {
    return this.#changing.run(() => this.#attach(!this.#isSettledStopped));
  }

  async #attach(isThorough = true): Promise<MachinePresence> {
    if (this.#running) return this.#presence;
    try {
      const running = await this.#tools.hypervisor.attach(this.#record.sockets);
      this.#adopt(running);
      void endLeftBehind(this.#tools.log, this.#record.name, this.#chain, running, (event) =>
        this.#tell(event),
      );
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#presence =
        error.code === 'MACHINE_NOT_RUNNING'
          ? { state: 'stopped' }
          : { state: 'unreachable', reason: error.message };
      if (this.#presence.state !== 'stopped' || !isThorough) return this.#presence;
    }
    await this.#settleInterrupted();
    this.#isSettledStopped = this.#presence.state === 'stopped';
    return this.#presence;
  }

  #adopt(running: RunningMachine): void {
    this.#running = running;
    this.#isSettledStopped = false;
    this.#presence = presenceOf(running);
    const end = running.onEvent((event) => this.#tell(event));
    void running.gone.then(() => {
      end();
      if (this.#running !== running) return;
      this.#running = undefined;
      this.#presence = { state: 'stopped' };
      this.#tell({ name: 'WARMSITE_GONE', data: {} });
    });
  }

  #tell(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  async #settleInterrupted(): Promise<void> {
    if (this.#record.dissolving) {
      if (this.#record.dissolving !== 'committing' && (await this.#mayRunOnLayers())) {
        this.#presence = {
          state: 'stale',
          reason: 'it runs on layers that the end of its protection has given up',
        };
        return;
      }
      await this.#dissolve();
      return;
    }
    if (!this.#record.protection) return;
    if (!this.#running && !(await isCertainlyStopped(this.#tools, this.#record.disks, this.#chain))) {
      this.#presence = {
        state: 'unreachable',
        reason: 'its disks are in use, but its QMP socket does not answer',
      };
      return;
    }
    try {
      await this.#watchingForStaleBase(async () => {
        await this.#chain.reconcile(this.#running);
        if (this.#record.suspect !== undefined) await this.#clearSuspicion(this.#record.suspect);
      });
    } catch (error) {
      if (!isFailure(error, 'PROTECTION_STALE_BASE')) throw error;
    }
  }

  /** Whatever finds a stale base leaves its word in the record, so that it is not forgotten when the machine stops. */
  async #watchingForStaleBase<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (isFailure(error, 'PROTECTION_STALE_BASE')) {
        this.#presence = { state: 'stale', reason: error.message };
        this.#tools.log.error('machine.stale-base', { machine: this.#record.name, reason: error.message });
        if (this.#record.suspect === undefined)
          await this.#storeRecord({ ...this.#record, suspect: error.message });
      }
      throw error;
    }
  }

  /**
   * After the machine ran on other disks: reads what the target acknowledged from the files here and compares it with the
   * digests. Equal: whatever ran has written nothing below the tips. Throws PROTECTION_STALE_BASE.
   */
  async #clearSuspicion(why: string): Promise<void> {
    const doubt = await this.#delivery!.doubtOfAcknowledged();
    if (doubt !== undefined) throw staleBase(`${why}; ${doubt}`);
    const { suspect: _cleared, ...record } = this.#record;
    await this.#storeRecord(record);
    this.#tools.log.info('machine.base-intact', { machine: this.#record.name });
  }

  /** Whether a process may write to the layers; one that is not to be reached or does not say what it has may. */
  async #mayRunOnLayers(): Promise<boolean> {
    if (this.#presence.state === 'unreachable') return true;
    const { disks } = this.#record;
    return mayRunOnLayers(this.#tools, this.layout, disks, this.#chain, this.#running);
  }

  /** Starts a managed machine on its chain; its process outlives ours. */
  start(): Promise<void> {
    return this.#changing.run(async () => {
      if ((await this.#attach()).state !== 'stopped') return;
      const runDirectory = dirname(this.#record.sockets.qmpPath);
      await this.#tools.files.makeDirectory(runDirectory);
      const { configuration, extraArguments } = this.#record;
      const disks = Object.fromEntries(this.#record.disks.map(({ diskId }) => [diskId, this.chain(diskId)]));
      this.#adopt(
        await this.#tools.hypervisor.start({
          configuration,
          disks,
          runDirectory,
          ...(extraArguments ? { extraArguments } : {}),
        }),
      );
    });
  }

  /** Begins to protect the machine. The first cut seals the owner's own files. */
  protect(protection: Protection, o: { readonly seed: boolean } = { seed: false }): Promise<void> {
    return this.#changing.run(async () => {
      if (this.#record.protection) {
        throw replicationFailure('PROTECTION_EXISTS', `${this.#record.name} is protected already`, {
          hint: 'Change its policy, or unprotect it first.',
        });
      }
      const { targetSiteId } = protection;
      const delivered = (): Delivered => this.#delivered;
      this.#delivery = await Delivery.begin(this.#tools, this.layout, targetSiteId, delivered, o);
      await this.#storeRecord({ ...this.#record, protection });
    });
  }

  /**
   * Ends the protection: the owner's files hold everything again, and the machine, if it runs, writes to them. The replica
   * stays at its site.
   */
  unprotect(): Promise<void> {
    return this.#sending.run(() =>
      this.#changing.run(async () => {
        await this.#attach();
        this.#needHealthy();
        await this.#storeRecord({ ...this.#record, dissolving: 'committing' });
        await this.#dissolve();
      }),
    );
  }

  /**
   * The way out of a stale base: ends the protection in favour of what the owner's files hold now. Nothing is committed into
   * them; the layers are kept in `set-aside-<cut>/`.
   */
  unprotectKeepingOrigin(): Promise<void> {
    return this.#sending.run(() =>
      this.#changing.run(async () => {
        await this.#attach();
        if (await this.#mayRunOnLayers()) {
          throw replicationFailure(
            'PROTECTION_EXISTS',
            `a process runs on the layers of ${this.#record.name}, or may do so`,
            { hint: 'Stop it first, or unprotect the machine without giving its layers up.' },
          );
        }
        await this.#storeRecord({ ...this.#record, dissolving: 'setting-aside' });
        await this.#dissolve();
      }),
    );
  }

  async #dissolve(): Promise<void> {
    const { dissolving: phase, suspect: _over, ...record } = this.#record;
    if (phase === 'committing') {
      await this.#chain.commitIntoOrigins(this.#running);
      await this.#storeRecord({ ...this.#record, dissolving: 'removing' });
    }
    const last = this.cuts.at(-1);
    const isKept = phase === 'setting-aside' && last !== undefined;
    await this.#chain.remove(isKept ? this.layout.setAside(last.cutId) : undefined);
    await this.#delivery?.remove();
    await this.#storeRecord({ ...record, disks: ofOneAge(record.disks), protection: null });
    this.#chain.haveDisks(this.#record.disks);
    this.#delivery = null;
    if (this.#presence.state === 'stale') this.#presence = presenceOf(this.#running);
  }

  /**
   * Takes a disk in that the machine has got: the next copy is the first one with it, and brings it whole beside the
   * differences of the others. Nothing is copied by this. Throws PROTECTION_DISK_TAKEN, PROTECTION_STALE_BASE.
   */
  addDisk(added: NewDisk): Promise<void> {
    return this.#changing.run(async () => {
      await this.#attach();
      this.#needHealthy();
      if (this.#running) await checkRunsOn(this.#running, added);
      // A cut of unknown outcome is one of the disks that there were.
      if (this.#record.protection)
        await this.#watchingForStaleBase(() => this.#chain.reconcile(this.#running));
      const record = withDisk(this.#record, this.cuts, added);
      await this.#storeRecord(record);
      this.#chain.haveDisks(record.disks);
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
      const cut = await this.#watchingForStaleBase(() =>
        this.#chain.cut(type, protection.freezeLimitMs, this.#running, together),
      );
      await this.#compact();
      return cut;
    });
  }

  /** Housekeeping as `settle`: the cut has been made, whatever becomes of this. */
  async #compact(): Promise<void> {
    const sendingCutId = this.#delivery?.sendingCutId;
    const bounds = { acknowledgedOrdinal: this.#acknowledgedOrdinal, sendingCutId };
    try {
      await this.#chain.compact(bounds, this.#running);
    } catch (error) {
      this.#tools.log.warn('chain.compact-failed', { machine: this.#record.name, reason: messageOf(error) });
    }
  }

  /** Whether the guest has written anything since the last cut; for a machine that does not run. */
  async hasUncutChanges(): Promise<boolean> {
    const last = happened(this.cuts).at(-1);
    for (const disk of this.#record.disks) {
      if (last && !isThereAt(disk, last.ordinal)) return true;
      await using reader = await this.#tools.images.open(this.chain(disk.diskId));
      const { data, zero } = await reader.ownExtents(1);
      const hasGrown = reader.sizeBytes !== sizeAt(disk, last);
      if (hasGrown || data.length + zero.length > 0) return true;
    }
    return false;
  }

  get #acknowledgedOrdinal(): number {
    return this.#delivery?.record.acknowledged?.ordinal ?? 0;
  }

  /** Cuts that the target has not acknowledged. */
  get unsent(): readonly CutRecord[] {
    return happened(this.#chain.cuts).filter(({ ordinal }) => ordinal > this.#acknowledgedOrdinal);
  }

  /**
   * Brings the target one point further, if there is one to send, and merges here what it has acknowledged. Throws
   * REPLICATION_CONFLICT with the evidence; failures of the connection are the caller's to repeat.
   */
  replicate(target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome> {
    return this.#sending.run(async () => {
      this.#needProtection();
      this.#needHealthy();
      throwIfAborted(signal);
      const outcome = await this.#delivery!.deliver(target, signal);
      await this.#settle();
      return outcome;
    });
  }

  /** Writes the base for a courier, see `Delivery`. Nothing is sent meanwhile; a complete copy on its way is broken off. */
  async exportSeed(
    target: (siteId: string) => ReplicationTarget,
    path: string,
    o: SeedExportOptions = {},
  ): Promise<SeedExported> {
    const { targetSiteId } = this.#needProtection();
    await this.#delivery!.preferSeed();
    if (happened(this.cuts).length === 0) await this.cut('crash');
    return this.#sending.run(async () => {
      this.#needProtection();
      this.#needHealthy();
      throwIfAborted(o.signal);
      return this.#delivery!.exportSeed(() => target(targetSiteId), path, o);
    });
  }

  /** Merging is housekeeping: a failure is reported and tried again after the next acknowledgement, not thrown. */
  #settle(): Promise<void> {
    return this.#changing.run(async () => {
      try {
        await this.#attach();
        this.#needHealthy();
        await this.#chain.mergeAcknowledged(this.#acknowledgedOrdinal, this.#running);
        // A layer that an interrupted compaction has left absorbing cannot be sent before that has ended.
        await this.#compact();
      } catch (error) {
        this.#tools.log.warn('chain.merge-failed', { machine: this.#record.name, reason: messageOf(error) });
      }
    });
  }

  /** Changes bandwidth, schedules or retention. */
  changeProtection(change: Partial<Omit<Protection, 'targetSiteId'>>): Promise<void> {
    return this.#changing.run(async () => {
      const protection = this.#needProtection();
      await this.#storeRecord({ ...this.#record, protection: { ...protection, ...change } });
    });
  }

  #needProtection(): Protection {
    const { protection, name } = this.#record;
    if (!protection) throw replicationFailure('PROTECTION_NOT_PROTECTED', `${name} is not protected`);
    return protection;
  }

  #needHealthy(): void {
    const { name, suspect } = this.#record;
    if (this.#presence.state === 'stale' || this.#presence.state === 'unreachable') {
      throw replicationFailure('PROTECTION_STALE_BASE', `${name}: ${this.#presence.reason}`, {
        context: { machine: name, state: this.#presence.state },
      });
    }
    if (suspect !== undefined) throw staleBase(`${name}: ${suspect}`);
  }

  async #storeRecord(record: MachineRecord): Promise<void> {
    await storeRecord(this.#tools.files, this.layout.record, machineKind(record), record);
    this.#record = record;
  }

  /** Lets go of the machine; it runs on. */
  async release(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.disconnect();
  }
}

function staleBase(message: string) {
  return replicationFailure('PROTECTION_STALE_BASE', message);
}
