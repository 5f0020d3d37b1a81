import { dirname } from 'node:path';
import type { DeltaHeader, DigestTree } from '../delta/index.ts';
import type { Hypervisor, ImageFile, MachineEvent, RunningMachine } from '../hypervisor/index.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { Mutex } from '../lib/mutex.ts';
import { newId } from '../lib/random.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { throttled } from '../peer/index.ts';
import type { Acknowledgement } from '../replica/index.ts';
import { chainAt, happened } from './chain.ts';
import { rebuildTree } from './delta-source.ts';
import { DigestStore } from './digests.ts';
import { replicationFailure } from './errors.ts';
import type { ProtectedLayout } from './layout.ts';
import { type ChainTools, ProtectedChain } from './protected-chain.ts';
import {
  type CutRecord,
  MACHINE_RECORD,
  type MachineRecord,
  type Protection,
  TARGET_RECORD,
  type TargetRecord,
} from './records.ts';
import {
  HEADER_DEFAULTS,
  type SendProgress,
  SendSession,
  type SentDelta,
  type StatementSigner,
} from './send-session.ts';
import { planSession, type SessionPlan } from './session-plan.ts';
import type { ReplicationTarget } from './target.ts';

export interface ProtectedTools extends ChainTools {
  readonly hypervisor: Hypervisor;
  readonly signer: StatementSigner;
  /** The identity of this site, as it stands in statements. */
  readonly siteId: string;
}

/** What the machine's process is doing, as far as this site can tell. */
export type MachinePresence =
  | { readonly state: 'running'; readonly processId: number | undefined }
  | { readonly state: 'stopped' }
  /** It runs on other disks than the recorded tips: nothing is cut, sent or merged. */
  | { readonly state: 'stale'; readonly reason: string }
  /** Its socket is held by another client, or does not answer sensibly. */
  | { readonly state: 'unreachable'; readonly reason: string };

export type ReplicateOutcome =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'sent'; readonly acknowledgement: Acknowledgement; readonly wireBytes: number }
  | { readonly kind: 'acknowledged'; readonly acknowledgement: Acknowledgement };

/**
 * A machine of this site and its protection: its process, its chain and how far its target is. Cuts, merges and the
 * like exclude each other; a delta is read and sent beside them, because what it reads is sealed.
 */
export class ProtectedMachine {
  readonly layout: ProtectedLayout;
  readonly #tools: ProtectedTools;
  readonly #chain: ProtectedChain;
  readonly #digests: DigestStore;
  readonly #changing = new Mutex();
  readonly #sending = new Mutex();
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  #record: MachineRecord;
  #target: TargetRecord | null;
  #running: RunningMachine | undefined;
  #presence: MachinePresence = { state: 'stopped' };
  #trees: ReadonlyMap<string, DigestTree> | undefined;
  /** It was found stopped, and what was left half done has been ended. */
  #isSettledStopped = false;
  #sendingCutId: string | undefined;
  #send: SendSession | undefined;

  private constructor(o: {
    layout: ProtectedLayout;
    tools: ProtectedTools;
    chain: ProtectedChain;
    record: MachineRecord;
    target: TargetRecord | null;
  }) {
    this.layout = o.layout;
    this.#tools = o.tools;
    this.#chain = o.chain;
    this.#record = o.record;
    this.#target = o.target;
    this.#digests = new DigestStore(o.tools.files, o.layout);
  }

  static async create(
    tools: ProtectedTools,
    layout: ProtectedLayout,
    record: MachineRecord,
  ): Promise<ProtectedMachine> {
    const { files } = tools;
    await files.makeDirectory(layout.targets);
    await storeRecord(files, layout.record, MACHINE_RECORD, record);
    await files.syncDirectory(dirname(layout.directory));
    return ProtectedMachine.open(tools, layout);
  }

  /** Opens a machine from its directory. Whether its process runs is not known before `attach`. */
  static async open(tools: ProtectedTools, layout: ProtectedLayout): Promise<ProtectedMachine> {
    const record = await loadRecord(tools.files, layout.record, MACHINE_RECORD);
    if (!record)
      throw replicationFailure('PROTECTION_MACHINE_UNKNOWN', `there is no machine in ${layout.directory}`);
    const chain = await ProtectedChain.open(tools, layout, record.disks);
    const siteId = record.protection?.targetSiteId;
    const target = siteId ? await loadRecord(tools.files, layout.target(siteId), TARGET_RECORD) : undefined;
    return new ProtectedMachine({ layout, tools, chain, record, target: target ?? null });
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
    return this.#target;
  }

  /** The delta that is being sent right now. */
  get sendProgress(): SendProgress | undefined {
    return this.#send?.progress;
  }

  /** The process of the machine, where it is attached. */
  get running(): RunningMachine | undefined {
    return this.#running;
  }

  chain(diskId: string): ImageFile[] {
    return this.#chain.chain(diskId);
  }

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
      this.#adopt(await this.#tools.hypervisor.attach(this.#record.sockets));
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
    this.#presence = { state: 'running', processId: running.processId };
    const end = running.onEvent((event) => {
      for (const listener of this.#listeners) listener(event);
    });
    void running.gone.then(() => {
      end();
      if (this.#running !== running) return;
      this.#running = undefined;
      this.#presence = { state: 'stopped' };
      for (const listener of this.#listeners) listener({ name: 'WARMSITE_GONE', data: {} });
    });
  }

  async #settleInterrupted(): Promise<void> {
    if (this.#record.dissolving) {
      await this.#dissolve();
      return;
    }
    if (!this.#record.protection) return;
    if (!this.#running && !(await this.#isCertainlyStopped())) {
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
    const acknowledged = this.#target?.acknowledged;
    if (!acknowledged)
      throw staleBase(`${why}; nothing was acknowledged that its files could be compared with`);
    for (const { diskId } of this.#record.disks) {
      const was = await this.#digestsOf(diskId, acknowledged.sequence);
      if (!was) throw staleBase(`${why}; the digests that its files could be compared with are lost`);
      const is = await this.#rebuild(diskId, acknowledged.ordinal);
      if (!was.root().equals(is.root()))
        throw staleBase(`${why}; the files of ${diskId} have been written since`);
    }
    const { suspect: _cleared, ...record } = this.#record;
    await this.#storeRecord(record);
    this.#tools.log.info('machine.base-intact', { machine: this.#record.name });
  }

  /**
   * QEMU locks the images that it writes: a chain that can be opened for reading is written by nobody. A cut of unknown
   * outcome leaves two files that may be the one that is written.
   */
  async #isCertainlyStopped(): Promise<boolean> {
    const { files } = this.#tools;
    for (const { diskId } of this.#record.disks) {
      const chain = this.chain(diskId);
      if (await this.#isLocked(chain)) return false;
      for (const tip of this.#chain.intendedTips(diskId)) {
        if ((await files.sizeOf(tip.path)) !== undefined && (await this.#isLocked([...chain, tip])))
          return false;
      }
    }
    return true;
  }

  async #isLocked(chain: readonly ImageFile[]): Promise<boolean> {
    try {
      await using _reader = await this.#tools.images.open(chain);
      return false;
    } catch (error) {
      if (isFailure(error, 'IMAGE_UNREADABLE') && /lock/i.test(error.message)) return true;
      throw error;
    }
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
  protect(protection: Protection): Promise<void> {
    return this.#changing.run(async () => {
      if (this.#record.protection) {
        throw replicationFailure('PROTECTION_EXISTS', `${this.#record.name} is protected already`, {
          hint: 'Change its policy, or unprotect it first.',
        });
      }
      const target: TargetRecord = { siteId: protection.targetSiteId, acknowledged: null, session: null };
      await this.#storeTarget(target);
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
        await this.#storeRecord({ ...this.#record, dissolving: true });
        await this.#dissolve();
      }),
    );
  }

  async #dissolve(): Promise<void> {
    const siteId = this.#record.protection?.targetSiteId;
    await this.#chain.dissolve(this.#running);
    if (siteId) await this.#tools.files.remove(this.layout.target(siteId));
    for (const { diskId } of this.#record.disks)
      await this.#tools.files.removeDirectory(this.layout.leaves(diskId));
    const { dissolving: _done, ...record } = this.#record;
    await this.#storeRecord({ ...record, protection: null });
    this.#target = null;
    this.#trees = undefined;
  }

  /** Makes a copy of the given type. Throws CUT_FAILED; nothing has changed then. */
  cut(copyType: string): Promise<CutRecord> {
    return this.#changing.run(async () => {
      const protection = this.#needProtection();
      // Without a connection the machine may have been started meanwhile, or only the connection may have been lost.
      await this.#attach();
      this.#needHealthy();
      const cut = await this.#watchingForStaleBase(() =>
        this.#chain.cut(copyType, protection.freezeLimitMs, this.#running),
      );
      await this.#compact();
      return cut;
    });
  }

  /** Housekeeping as `settle`: the cut has been made, whatever becomes of this. */
  async #compact(): Promise<void> {
    const bounds = { acknowledgedOrdinal: this.#acknowledgedOrdinal, sendingCutId: this.#sendingCutId };
    try {
      await this.#chain.compact(bounds, this.#running);
    } catch (error) {
      this.#tools.log.warn('chain.compact-failed', { machine: this.#record.name, reason: messageOf(error) });
    }
  }

  /** Whether the guest has written anything since the last cut; for a machine that does not run. */
  async hasUncutChanges(): Promise<boolean> {
    for (const { diskId } of this.#record.disks) {
      await using reader = await this.#tools.images.open(this.chain(diskId));
      const { data, zero } = await reader.ownExtents(1);
      if (data.length + zero.length > 0) return true;
    }
    return false;
  }

  get #acknowledgedOrdinal(): number {
    return this.#target?.acknowledged?.ordinal ?? 0;
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
      const protection = this.#needProtection();
      this.#needHealthy();
      throwIfAborted(signal);
      const { machineId, epoch } = this.#record;
      const record = this.#target ?? { siteId: target.siteId, acknowledged: null, session: null };
      const plan = planSession(epoch, this.#chain.cuts, record, await target.describe(machineId, signal));
      switch (plan.kind) {
        case 'nothing':
          await this.#settle();
          return { kind: 'nothing' };
        case 'conflict':
          throw replicationFailure(
            'REPLICATION_CONFLICT',
            `${this.#record.name}: ${JSON.stringify(plan.conflict)}`,
            {
              context: { machine: this.#record.name, ...plan.conflict },
            },
          );
        case 'acknowledged':
          return this.#adoptAcknowledgement(plan.cut, plan.newest);
        default:
          return this.#transfer(target, protection, plan, signal);
      }
    });
  }

  async #transfer(
    target: ReplicationTarget,
    protection: Protection,
    plan: Extract<SessionPlan, { kind: 'full' | 'incremental' }>,
    signal?: AbortSignal,
  ): Promise<ReplicateOutcome> {
    const { clock, random } = this.#tools;
    const { machineId, name } = this.#record;
    const session = plan.resume ?? newId(clock, random);
    this.#sendingCutId = plan.cut.cutId;
    try {
      await this.#storeTarget({ ...this.#target!, session: { session, cutId: plan.cut.cutId } });
      await using sending = await this.#open(plan, session, signal);
      this.#send = sending;
      const header = { ...this.#header(plan, session), firstFrame: 0 };
      const answer = await target.offer(
        header,
        { machineName: name, retention: protection.retention },
        signal,
      );
      if (answer.kind === 'conflict') {
        throw replicationFailure(
          'REPLICATION_CONFLICT',
          `${name}: the target refuses: ${JSON.stringify(answer.conflict)}`,
          {
            context: { machine: name, ...answer.conflict },
          },
        );
      }
      if (answer.kind === 'already') {
        return this.#accept(plan.cut, answer.newest, await sending.readThrough());
      }
      const stream = throttled(sending.stream(answer.progress, protection.compression), {
        bytesPerSecond: () => this.#record.protection?.bytesPerSecond,
        clock,
      });
      const acknowledgement = await target.upload(machineId, session, stream, signal);
      const { sent } = sending;
      if (!sent) {
        throw replicationFailure(
          'REPLICATION_ACK_WRONG',
          'an acknowledgement came before the delta had been sent',
        );
      }
      return this.#accept(plan.cut, acknowledgement, sent);
    } finally {
      this.#send = undefined;
      this.#sendingCutId = undefined;
    }
  }

  /** The target has a point whose acknowledgement never arrived: compute its digests here and go on. */
  async #adoptAcknowledgement(cut: CutRecord, newest: Acknowledgement): Promise<ReplicateOutcome> {
    const acknowledged = this.#target?.acknowledged ?? null;
    const parent = acknowledged && {
      pointId: acknowledged.pointId,
      statementDigest: acknowledged.statementDigest,
    };
    const plan = { kind: 'incremental' as const, cut, sequence: newest.sequence, parent, resume: undefined };
    await using sending = await this.#open(plan, newest.pointId, undefined);
    const outcome = await this.#accept(cut, newest, await sending.readThrough());
    return outcome.kind === 'sent' ? { kind: 'acknowledged', acknowledgement: newest } : outcome;
  }

  async #open(
    plan: Extract<SessionPlan, { kind: 'full' | 'incremental' }>,
    session: string,
    signal: AbortSignal | undefined,
  ): Promise<SendSession> {
    const { images, signer, siteId } = this.#tools;
    const { cut, sequence, parent } = plan;
    const { machineId, name, epoch, configuration, disks } = this.#record;
    const { copyType, consistency, degraded, cutAtMs, pauseMs, frozenMs, missed } = cut;
    return SendSession.open({
      images,
      signer,
      header: this.#header(plan, session),
      chains: Object.fromEntries(disks.map((disk) => [disk.diskId, chainAt(disk, this.#chain.cuts, cut)])),
      disks,
      trees: parent ? await this.#loadTrees() : new Map(),
      about: {
        ...{
          machineId,
          machineName: name,
          sourceSiteId: siteId,
          pointId: cut.cutId,
          sequence,
          epoch,
          parent,
        },
        ...{ copyType, consistency, cutAtMs, pauseMs, missed, configuration },
        ...(degraded === undefined ? {} : { degraded }),
        ...(frozenMs === undefined ? {} : { frozenMs }),
      },
      ...(signal ? { signal } : {}),
    });
  }

  #header(
    plan: Extract<SessionPlan, { kind: 'full' | 'incremental' }>,
    session: string,
  ): Omit<DeltaHeader, 'firstFrame'> {
    const { machineId, epoch, disks } = this.#record;
    return {
      session,
      machineId,
      pointId: plan.cut.cutId,
      sequence: plan.sequence,
      epoch,
      parent: plan.parent,
      disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
      ...HEADER_DEFAULTS,
    };
  }

  /** Records an acknowledgement: digests first, then the word that layers may go, then the layers. */
  async #accept(
    cut: CutRecord,
    acknowledgement: Acknowledgement,
    sent: SentDelta,
  ): Promise<ReplicateOutcome> {
    if (acknowledgement.pointId !== cut.cutId || acknowledgement.statementDigest !== sent.statementDigest) {
      throw replicationFailure(
        'REPLICATION_ACK_WRONG',
        `the target acknowledged something else than ${cut.cutId}`,
        {
          context: { sent: cut.cutId, acknowledged: acknowledgement.pointId },
        },
      );
    }
    const { sequence, statementDigest, pointId } = acknowledgement;
    for (const { diskId } of this.#record.disks) {
      const older = sequence > 1 ? this.#trees?.get(diskId) : undefined;
      await this.#digests.save(diskId, sequence, sent.trees.get(diskId)!, older, sent.changed.get(diskId)!);
    }
    this.#trees = sent.trees;
    const atMs = this.#tools.clock.wallMs();
    await this.#storeTarget({
      ...this.#target!,
      acknowledged: { pointId, ordinal: cut.ordinal, sequence, statementDigest, atMs },
      session: null,
    });
    await this.#settle();
    return { kind: 'sent', acknowledgement, wireBytes: sent.wireBytes };
  }

  /** Merging is housekeeping: a failure is reported and tried again after the next acknowledgement, not thrown. */
  #settle(): Promise<void> {
    return this.#changing.run(async () => {
      try {
        await this.#attach();
        this.#needHealthy();
        await this.#chain.mergeAcknowledged(this.#acknowledgedOrdinal, this.#running);
      } catch (error) {
        this.#tools.log.warn('chain.merge-failed', { machine: this.#record.name, reason: messageOf(error) });
      }
    });
  }

  async #loadTrees(): Promise<ReadonlyMap<string, DigestTree>> {
    if (this.#trees) return this.#trees;
    const acknowledged = this.#target!.acknowledged!;
    const trees = new Map<string, DigestTree>();
    for (const { diskId } of this.#record.disks) {
      const known = await this.#digestsOf(diskId, acknowledged.sequence);
      trees.set(diskId, known ?? (await this.#rebuild(diskId, acknowledged.ordinal)));
    }
    this.#trees = trees;
    return trees;
  }

  /** Undefined if the stored digests cannot be used. */
  async #digestsOf(diskId: string, sequence: number): Promise<DigestTree | undefined> {
    try {
      return await this.#digests.load(diskId, sequence);
    } catch (error) {
      if (!isFailure(error, 'REPLICATION_DIGESTS_LOST')) throw error;
      this.#tools.log.warn('digests.lost', { machine: this.#record.name, diskId, reason: error.message });
      return undefined;
    }
  }

  async #rebuild(diskId: string, acknowledgedOrdinal: number): Promise<DigestTree> {
    const disk = this.#record.disks.find((candidate) => candidate.diskId === diskId)!;
    const at = happened(this.#chain.cuts).findLast(({ ordinal }) => ordinal <= acknowledgedOrdinal);
    const chain = at ? chainAt(disk, this.#chain.cuts, at) : disk.chain;
    await using reader = await this.#tools.images.open(chain);
    return await rebuildTree(reader);
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
    await storeRecord(this.#tools.files, this.layout.record, MACHINE_RECORD, record);
    this.#record = record;
  }

  async #storeTarget(target: TargetRecord): Promise<void> {
    await this.#tools.files.makeDirectory(this.layout.targets);
    await storeRecord(this.#tools.files, this.layout.target(target.siteId), TARGET_RECORD, target);
    this.#target = target;
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
