import type { DeltaHeader, DigestTree } from '../delta/index.ts';
import { assert } from '../lib/assert.ts';
import { isFailure } from '../lib/errors.ts';
import { newId } from '../lib/random.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { throttled } from '../peer/index.ts';
import type { Acknowledgement } from '../replica/index.ts';
import { chainAt, happened } from './chain.ts';
import { conflictFailure } from './conflict.ts';
import { rebuildTree } from './delta-source.ts';
import { DigestStore } from './digests.ts';
import { replicationFailure } from './errors.ts';
import type { ProtectedLayout } from './layout.ts';
import type { ChainTools } from './protected-chain.ts';
import { type CutRecord, type MachineRecord, TARGET_RECORD, type TargetRecord } from './records.ts';
import {
  HEADER_DEFAULTS,
  type SendProgress,
  SendSession,
  type SentDelta,
  type StatementSigner,
} from './send-session.ts';
import { planSession, type SessionPlan } from './session-plan.ts';
import type { ReplicationTarget } from './target.ts';

export interface DeliveryTools extends ChainTools {
  readonly signer: StatementSigner;
  /** The identity of this site, as it stands in statements. */
  readonly siteId: string;
}

/** The machine that is delivered, as it is when asked. */
export interface Delivered {
  readonly record: MachineRecord;
  readonly cuts: readonly CutRecord[];
}

export type ReplicateOutcome =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'sent'; readonly acknowledgement: Acknowledgement; readonly wireBytes: number }
  | { readonly kind: 'acknowledged'; readonly acknowledgement: Acknowledgement };

type SendPlan = Extract<SessionPlan, { kind: 'full' | 'incremental' }>;

/**
 * The delivery of one machine to one target: how far the target is, the digests of what it has acknowledged, and the
 * delta on its way. Callers see to it that `deliver` runs once at a time.
 */
export class Delivery {
  readonly #tools: DeliveryTools;
  readonly #layout: ProtectedLayout;
  readonly #digests: DigestStore;
  readonly #machine: () => Delivered;
  #record: TargetRecord;
  #trees: ReadonlyMap<string, DigestTree> | undefined;
  #sendingCutId: string | undefined;
  #send: SendSession | undefined;

  private constructor(
    tools: DeliveryTools,
    layout: ProtectedLayout,
    record: TargetRecord,
    machine: () => Delivered,
  ) {
    this.#tools = tools;
    this.#layout = layout;
    this.#digests = new DigestStore(tools.files, layout);
    this.#machine = machine;
    this.#record = record;
  }

  /** Begins with a target that has nothing of the machine yet. Durable on return. */
  static async begin(
    tools: DeliveryTools,
    layout: ProtectedLayout,
    siteId: string,
    machine: () => Delivered,
  ): Promise<Delivery> {
    const delivery = new Delivery(tools, layout, { siteId, acknowledged: null, session: null }, machine);
    await delivery.#store(delivery.#record);
    return delivery;
  }

  /** Goes on with what an earlier process has recorded. */
  static async open(
    tools: DeliveryTools,
    layout: ProtectedLayout,
    siteId: string,
    machine: () => Delivered,
  ): Promise<Delivery> {
    const record = await loadRecord(tools.files, layout.target(siteId), TARGET_RECORD);
    return new Delivery(tools, layout, record ?? { siteId, acknowledged: null, session: null }, machine);
  }

  get record(): TargetRecord {
    return this.#record;
  }

  /** The cut whose delta is being sent; its layer is not to be touched. */
  get sendingCutId(): string | undefined {
    return this.#sendingCutId;
  }

  get progress(): SendProgress | undefined {
    return this.#send?.progress;
  }

  /**
   * Brings the target one point further, if there is one to send. Throws REPLICATION_CONFLICT with the evidence. When an
   * upload that came late has taken the target somewhere else meanwhile, the next step is planned anew at once.
   */
  async deliver(target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome> {
    try {
      return await this.#deliverNext(target, signal);
    } catch (error) {
      if (!isFailure(error, 'REPLICA_SESSION_OUTDATED')) throw error;
      return this.#deliverNext(target, signal);
    }
  }

  async #deliverNext(target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome> {
    const { record, cuts } = this.#machine();
    const replica = await target.describe(record.machineId, signal);
    const plan = planSession(record.epoch, cuts, this.#record, replica);
    switch (plan.kind) {
      case 'nothing':
        return plan;
      case 'conflict':
        throw conflictFailure(record.name, plan.conflict);
      case 'acknowledged':
        return this.#adoptAcknowledgement(plan.cut, plan.newest);
      default:
        return this.#transfer(target, plan, signal);
    }
  }

  /**
   * Why the files here may not be what the target acknowledged; undefined if they read as it was. For a machine that ran on
   * other disks in between.
   */
  async doubtOfAcknowledged(): Promise<string | undefined> {
    const { acknowledged } = this.#record;
    if (!acknowledged) return 'nothing was acknowledged that its files could be compared with';
    for (const { diskId } of this.#machine().record.disks) {
      const was = await this.#digestsOf(diskId, acknowledged.sequence);
      if (!was) return 'the digests that its files could be compared with are lost';
      const is = await this.#rebuild(diskId, acknowledged.ordinal);
      if (!was.root().equals(is.root())) return `the files of ${diskId} have been written since`;
    }
    return undefined;
  }

  /** Removes every record of this delivery. The target keeps its points. */
  async remove(): Promise<void> {
    await this.#tools.files.remove(this.#layout.target(this.#record.siteId));
    for (const { diskId } of this.#machine().record.disks) {
      await this.#tools.files.removeDirectory(this.#layout.leaves(diskId));
    }
  }

  async #transfer(
    target: ReplicationTarget,
    plan: SendPlan,
    signal?: AbortSignal,
  ): Promise<ReplicateOutcome> {
    const { clock, random } = this.#tools;
    const { machineId, name, protection } = this.#machine().record;
    assert(protection !== null, 'only a protected machine is delivered');
    const session = plan.resume ?? newId(clock, random);
    this.#sendingCutId = plan.cut.cutId;
    try {
      await this.#store({ ...this.#record, session: { session, cutId: plan.cut.cutId } });
      await using sending = await this.#open(plan, session, signal);
      this.#send = sending;
      const header = { ...this.#header(plan, session), firstFrame: 0 };
      const answer = await target.offer(
        header,
        { machineName: name, retention: protection.retention },
        signal,
      );
      if (answer.kind === 'conflict') throw conflictFailure(name, answer.conflict);
      if (answer.kind === 'already') {
        return this.#accept(plan.cut, answer.newest, await sending.readThrough());
      }
      const stream = throttled(sending.stream(answer.progress, protection.compression), {
        bytesPerSecond: () => this.#machine().record.protection?.bytesPerSecond,
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
    const acknowledged = this.#record.acknowledged;
    const parent = acknowledged && {
      pointId: acknowledged.pointId,
      statementDigest: acknowledged.statementDigest,
    };
    const plan = { kind: 'incremental' as const, cut, sequence: newest.sequence, parent, resume: undefined };
    await using sending = await this.#open(plan, newest.pointId, undefined);
    const outcome = await this.#accept(cut, newest, await sending.readThrough());
    return outcome.kind === 'sent' ? { kind: 'acknowledged', acknowledgement: newest } : outcome;
  }

  async #open(plan: SendPlan, session: string, signal: AbortSignal | undefined): Promise<SendSession> {
    const { images, signer, siteId } = this.#tools;
    const { cut, sequence, parent } = plan;
    const { record: machine, cuts } = this.#machine();
    const { machineId, name, epoch, configuration, disks } = machine;
    const { copyType, consistency, degraded, cutAtMs, pauseMs, frozenMs, missed } = cut;
    return SendSession.open({
      images,
      signer,
      header: this.#header(plan, session),
      chains: Object.fromEntries(disks.map((disk) => [disk.diskId, chainAt(disk, cuts, cut)])),
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

  #header(plan: SendPlan, session: string): Omit<DeltaHeader, 'firstFrame'> {
    const { machineId, epoch, disks } = this.#machine().record;
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
    for (const { diskId } of this.#machine().record.disks) {
      const older = sequence > 1 ? this.#trees?.get(diskId) : undefined;
      await this.#digests.save(diskId, sequence, sent.trees.get(diskId)!, older, sent.changed.get(diskId)!);
    }
    this.#trees = sent.trees;
    const atMs = this.#tools.clock.wallMs();
    await this.#store({
      ...this.#record,
      acknowledged: { pointId, ordinal: cut.ordinal, sequence, statementDigest, atMs, cutAtMs: cut.cutAtMs },
      session: null,
    });
    return { kind: 'sent', acknowledgement, wireBytes: sent.wireBytes };
  }

  async #loadTrees(): Promise<ReadonlyMap<string, DigestTree>> {
    if (this.#trees) return this.#trees;
    const acknowledged = this.#record.acknowledged!;
    const trees = new Map<string, DigestTree>();
    for (const { diskId } of this.#machine().record.disks) {
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
      this.#tools.log.warn('digests.lost', {
        machine: this.#machine().record.name,
        diskId,
        reason: error.message,
      });
      return undefined;
    }
  }

  async #rebuild(diskId: string, acknowledgedOrdinal: number): Promise<DigestTree> {
    const { record, cuts } = this.#machine();
    const disk = record.disks.find((candidate) => candidate.diskId === diskId)!;
    const at = happened(cuts).findLast(({ ordinal }) => ordinal <= acknowledgedOrdinal);
    const chain = at ? chainAt(disk, cuts, at) : disk.chain;
    await using reader = await this.#tools.images.open(chain);
    return await rebuildTree(reader);
  }

  async #store(target: TargetRecord): Promise<void> {
    await this.#tools.files.makeDirectory(this.#layout.targets);
    await storeRecord(this.#tools.files, this.#layout.target(target.siteId), TARGET_RECORD, target);
    this.#record = target;
  }
}
