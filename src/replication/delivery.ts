import type { DeltaHeader, DigestTree } from '../delta/index.ts';
import { assert } from '../lib/assert.ts';
import { isFailure } from '../lib/errors.ts';
import { Mutex } from '../lib/mutex.ts';
import { newId } from '../lib/random.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { observed } from '../lib/streams.ts';
import { throttled } from '../peer/index.ts';
import { limitAt, type SignedStatement, statementDigest, type Zones } from '../recovery-point/index.ts';
import type { Acknowledgement } from '../replica/index.ts';
import { chainAt, chainUpTo, disksOf, happened, isThereAt, sizeAt } from './chain.ts';
import { conflictFailure } from './conflict.ts';
import { rebuildTree } from './delta-source.ts';
import { DigestStore } from './digests.ts';
import { replicationFailure } from './errors.ts';
import type { ProtectedLayout } from './layout.ts';
import type { ChainTools } from './protected-chain.ts';
import {
  type CutRecord,
  type MachineRecord,
  type ProtectedDisk,
  TARGET_RECORD,
  type TargetRecord,
} from './records.ts';
import {
  exportedAs,
  leavesStream,
  partialOf,
  type SeedExported,
  type SeedExportOptions,
  seedPath,
} from './seed-export.ts';
import { exportAgain, writeSeedOf } from './seed-sender.ts';
import {
  HEADER_DEFAULTS,
  type SendProgress,
  SendSession,
  type SentDelta,
  type StatementSigner,
  saidOf,
} from './send-session.ts';
import { planSession, type SessionPlan } from './session-plan.ts';
import type { ReplicationTarget } from './target.ts';

export interface DeliveryTools extends ChainTools {
  readonly signer: StatementSigner;
  /** The identity of this site, as it stands in statements. */
  readonly siteId: string;
  readonly zones: Zones;
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
  /** Ends the transfer of a complete copy. */
  #breakOff: AbortController | undefined;
  readonly #storing = new Mutex();

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
    o: { readonly seed: boolean } = { seed: false },
  ): Promise<Delivery> {
    const record: TargetRecord = { siteId, acknowledged: null, session: null };
    const delivery = new Delivery(tools, layout, record, machine);
    await delivery.#store(o.seed ? { seed: { state: 'wanted' } } : {});
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

  /** The cut whose delta is being sent, or has been exported and not announced; its layer is not to be touched. */
  get sendingCutId(): string | undefined {
    const { seed } = this.#record;
    return this.#sendingCutId ?? (seed?.state === 'exported' ? seed.cutId : undefined);
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
    if (this.#record.seed?.state === 'awaited' && replica?.newest?.level === 'verified') {
      // It has come: from here on the target's points are whole.
      await this.#store({ seed: undefined });
    }
    const plan = planSession(record.epoch, cuts, this.#record, replica);
    switch (plan.kind) {
      case 'nothing':
        return plan;
      case 'conflict':
        throw conflictFailure(record.name, plan.conflict);
      case 'acknowledged':
        return this.#adoptAcknowledgement(plan.cut, plan.newest);
      case 'announce':
        return this.#announce(target, plan, signal);
      default:
        return this.#transfer(target, plan, signal);
    }
  }

  /**
   * From now on the first copy goes by courier; a transfer of it over the wire is broken off. Throws
   * REPLICATION_SEED_NOT_NEEDED if the target has it already.
   */
  async preferSeed(): Promise<void> {
    if (this.#record.acknowledged && !this.#record.seed) throw seedNotNeeded(this.#machine().record.name);
    if (this.#record.seed) return;
    await this.#store({ seed: { state: 'wanted' } });
    this.#breakOff?.abort();
  }

  /**
   * Writes the seed: of the first cut while nothing is acknowledged, afterwards (the first one was lost, say) of the point
   * acknowledged last, whose state the chain here holds as long as no younger one is acknowledged. Callers see to it that
   * nothing is delivered meanwhile. Durable on return, and deltas upon it may flow.
   */
  async exportSeed(
    target: () => ReplicationTarget,
    path: string,
    o: SeedExportOptions,
  ): Promise<SeedExported> {
    await this.preferSeed();
    const { seed } = this.#record;
    return seed?.state === 'awaited'
      ? exportAgain(
          this.#tools,
          this.#machine(),
          this.#record,
          { target: target(), signed: seed.signed, path },
          o,
        )
      : this.#exportFirst(path, o);
  }

  async #exportFirst(path: string, o: SeedExportOptions): Promise<SeedExported> {
    const { cuts, record } = this.#machine();
    const [cut] = happened(cuts);
    assert(cut !== undefined, 'a machine that is seeded has a cut');
    const about = { machineName: record.name, sequence: 1, pointId: cut.cutId };
    const { file, known } = await seedPath(this.#tools.files, path, about);
    const { seed } = this.#record;
    if (known && seed?.state === 'exported') return exportedAs(file, known);
    // Its end was not recorded: what is there is gone on with.
    if (known) await this.#tools.files.rename(file, partialOf(file));
    this.#sendingCutId = cut.cutId;
    try {
      const plan = { kind: 'full' as const, cut, sequence: 1, parent: null, resume: undefined };
      await using sending = await this.#open(plan, cut.cutId, o.signal);
      const { bytes, sent } = await writeSeedOf(this.#tools, sending, file, o);
      await this.#recordExport(cut, sent);
      return { path: file, pointId: cut.cutId, sequence: 1, bytes };
    } finally {
      this.#sendingCutId = undefined;
    }
  }

  /** Digests first, then the word that the seed is there. */
  async #recordExport(cut: CutRecord, sent: SentDelta): Promise<void> {
    for (const [diskId, tree] of sent.trees) {
      await this.#digests.save(diskId, 1, tree, undefined, sent.changed.get(diskId)!);
    }
    this.#trees = sent.trees;
    await this.#store({ seed: { state: 'exported', cutId: cut.cutId, signed: sent.signed } });
  }

  /** Tells the target what its base will be, with the digests upon which it can prove what comes before that. */
  async #announce(
    target: ReplicationTarget,
    { cut, signed }: Extract<SessionPlan, { kind: 'announce' }>,
    signal?: AbortSignal,
  ): Promise<ReplicateOutcome> {
    const { clock, random, files } = this.#tools;
    const { name, protection } = this.#machine().record;
    assert(protection !== null, 'only a protected machine is delivered');
    const paths = signed.statement.disks.map(({ diskId }) => this.#digests.path(diskId, 1));
    let wireBytes = 0;
    const counted = observed(leavesStream(files, paths), ({ length }) => {
      wireBytes += length;
    });
    const leaves = this.#throttled(counted);
    const announcement = { session: newId(clock, random), signed };
    const details = { machineName: name, retention: protection.retention };
    const acknowledgement = await target.seeds.announce(announcement, details, leaves, signal);
    checkAcknowledged(acknowledgement, cut, statementDigest(signed.statement));
    await this.#recordAcknowledgement(cut, acknowledgement, signed);
    return { kind: 'sent', acknowledgement, wireBytes };
  }

  /** No faster than the policy allows at each moment. */
  #throttled(stream: AsyncIterable<Uint8Array>) {
    const { clock, zones } = this.#tools;
    const limit = () => limitAt(this.#machine().record.protection ?? {}, clock.wallMs(), zones);
    return throttled(stream, { bytesPerSecond: limit, clock });
  }

  /**
   * Why the files here may not be what the target acknowledged; undefined if they read as it was. For a machine that ran on
   * other disks in between.
   */
  async doubtOfAcknowledged(): Promise<string | undefined> {
    const { acknowledged } = this.#record;
    if (!acknowledged) return 'nothing was acknowledged that its files could be compared with';
    for (const { diskId } of this.#acknowledgedDisks()) {
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

  async #transfer(target: ReplicationTarget, plan: SendPlan, asked?: AbortSignal): Promise<ReplicateOutcome> {
    const { clock, random } = this.#tools;
    const { machineId, name, protection } = this.#machine().record;
    assert(protection !== null, 'only a protected machine is delivered');
    const session = plan.resume ?? newId(clock, random);
    const { cutId } = plan.cut;
    const breakOff = new AbortController();
    const signal = asked ? AbortSignal.any([asked, breakOff.signal]) : breakOff.signal;
    this.#sendingCutId = cutId;
    // A complete copy gives way to a seed as soon as somebody wants that.
    if (plan.kind === 'full') this.#breakOff = breakOff;
    try {
      const wholeBlocks = plan.resume
        ? this.#record.session?.wholeBlocks
        : this.#record.seed?.state === 'awaited';
      await this.#store({ session: { session, cutId, ...(wholeBlocks ? { wholeBlocks } : {}) } });
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
      const stream = this.#throttled(sending.stream(answer.progress, protection.compression));
      const acknowledgement = await target.upload(machineId, session, stream, signal);
      const { sent } = sending;
      if (!sent) {
        throw replicationFailure(
          'REPLICATION_ACK_WRONG',
          'an acknowledgement came before the delta had been sent',
        );
      }
      return this.#accept(plan.cut, acknowledgement, sent);
    } catch (error) {
      if (breakOff.signal.aborted && !asked?.aborted) return { kind: 'nothing' };
      throw error;
    } finally {
      this.#breakOff = undefined;
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
    const disks = disksOf(machine.disks, cut);
    return SendSession.open({
      images,
      signer,
      header: this.#header(plan, session),
      chains: Object.fromEntries(disks.map((disk) => [disk.diskId, chainAt(disk, cuts, cut)])),
      disks,
      trees: parent ? await this.#loadTrees() : new Map(),
      about: { ...saidOf(machine, cut), sourceSiteId: siteId, sequence, parent },
      ...(signal ? { signal } : {}),
    });
  }

  #header(plan: SendPlan, session: string): Omit<DeltaHeader, 'firstFrame'> {
    const { machineId, epoch, disks } = this.#machine().record;
    const begun = this.#record.session;
    const isWhole = plan.parent !== null && begun?.cutId === plan.cut.cutId && begun.wholeBlocks === true;
    return {
      session,
      machineId,
      pointId: plan.cut.cutId,
      sequence: plan.sequence,
      epoch,
      parent: plan.parent,
      disks: disksOf(disks, plan.cut).map((disk) => ({
        diskId: disk.diskId,
        sizeBytes: sizeAt(disk, plan.cut),
      })),
      ...HEADER_DEFAULTS,
      // What lies upon a base that has not come can be proven only by whole blocks.
      ...(isWhole ? { granularityBytes: HEADER_DEFAULTS.blockBytes } : {}),
    };
  }

  /** Records an acknowledgement: digests first, then the word that layers may go, then the layers. */
  async #accept(
    cut: CutRecord,
    acknowledgement: Acknowledgement,
    sent: SentDelta,
  ): Promise<ReplicateOutcome> {
    checkAcknowledged(acknowledgement, cut, sent.statementDigest);
    const { sequence } = acknowledgement;
    for (const [diskId, tree] of sent.trees) {
      const older = sequence > 1 ? this.#trees?.get(diskId) : undefined;
      await this.#digests.save(diskId, sequence, tree, older, sent.changed.get(diskId)!);
    }
    this.#trees = sent.trees;
    await this.#recordAcknowledgement(cut, acknowledgement, sent.signed);
    return { kind: 'sent', acknowledgement, wireBytes: sent.wireBytes };
  }

  async #recordAcknowledgement(
    cut: CutRecord,
    { pointId, sequence, statementDigest, level }: Acknowledgement,
    signed: SignedStatement,
  ): Promise<void> {
    const atMs = this.#tools.clock.wallMs();
    await this.#store({
      acknowledged: { pointId, ordinal: cut.ordinal, sequence, statementDigest, atMs, cutAtMs: cut.cutAtMs },
      session: null,
      seed: level === 'awaiting-seed' ? { state: 'awaited', signed } : undefined,
    });
  }

  async #loadTrees(): Promise<ReadonlyMap<string, DigestTree>> {
    if (this.#trees) return this.#trees;
    const acknowledged = this.#record.acknowledged!;
    const trees = new Map<string, DigestTree>();
    for (const { diskId } of this.#acknowledgedDisks()) {
      const known = await this.#digestsOf(diskId, acknowledged.sequence);
      trees.set(diskId, known ?? (await this.#rebuild(diskId, acknowledged.ordinal)));
    }
    this.#trees = trees;
    return trees;
  }

  /** The disks of the point that was acknowledged last. */
  #acknowledgedDisks(): ProtectedDisk[] {
    const { ordinal } = this.#record.acknowledged!;
    return this.#machine().record.disks.filter((disk) => isThereAt(disk, ordinal));
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
    const chain = chainUpTo(disk, cuts, acknowledgedOrdinal);
    await using reader = await this.#tools.images.open(chain);
    return await rebuildTree(reader);
  }

  /** One at a time, because a person may ask for a seed while a delta is on its way. */
  #store(change: { [K in keyof TargetRecord]?: TargetRecord[K] | undefined }): Promise<void> {
    return this.#storing.run(async () => {
      const { seed, ...target } = { ...this.#record, ...change } as TargetRecord;
      const record = { ...target, ...(seed ? { seed } : {}) };
      await this.#tools.files.makeDirectory(this.#layout.targets);
      await storeRecord(this.#tools.files, this.#layout.target(record.siteId), TARGET_RECORD, record);
      this.#record = record;
    });
  }
}

function checkAcknowledged(
  { pointId, statementDigest }: Acknowledgement,
  cut: CutRecord,
  digest: string,
): void {
  if (pointId === cut.cutId && statementDigest === digest) return;
  const said = `the target acknowledged something else than ${cut.cutId}`;
  throw replicationFailure('REPLICATION_ACK_WRONG', said, {
    context: { sent: cut.cutId, acknowledged: pointId },
  });
}

function seedNotNeeded(machine: string): Error {
  return replicationFailure('REPLICATION_SEED_NOT_NEEDED', `${machine} has been replicated already`, {
    context: { machine },
  });
}
