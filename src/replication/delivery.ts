import { assert } from '../lib/assert.ts';
import { isFailure } from '../lib/errors.ts';
import type { Extents } from '../lib/extents.ts';
import { Mutex } from '../lib/mutex.ts';
import { newId } from '../lib/random.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { observed } from '../lib/streams.ts';
import { throttled } from '../peer/index.ts';
import {
  type Claim,
  limitAt,
  type SignedStatement,
  statementDigest,
  type Zones,
} from '../recovery-point/index.ts';
import type { Acknowledgement, ReplicaDescription } from '../replica/index.ts';
import { AcknowledgedDigests } from './acknowledged-digests.ts';
import { describedTo } from './claim-telling.ts';
import { conflictFailure } from './conflict.ts';
import { deltaHeader, deltaRequest, type SendPlan } from './delta-request.ts';
import { checkAcknowledged, transferDelta } from './delta-transfer.ts';
import { replicationFailure } from './errors.ts';
import type { ProtectedLayout } from './layout.ts';
import { checkHeld } from './machine-tenure.ts';
import { outrunBy, outrunSince } from './outrun.ts';
import { placeOf, type TargetPlace } from './places.ts';
import type { ChainTools } from './protected-chain.ts';
import {
  type CutRecord,
  type MachineRecord,
  TARGET_RECORD,
  type TargetPolicy,
  type TargetRecord,
  targetKind,
  type UnsureCut,
} from './records.ts';
import {
  exportedAs,
  leavesStream,
  partialOf,
  type SeedExported,
  type SeedExportOptions,
  seedPath,
} from './seed-export.ts';
import { dropSeed, exportAgain, firstOf, writeSeedOf } from './seed-sender.ts';
import { type SendProgress, SendSession, type SentDelta, type StatementSigner } from './send-session.ts';
import { epochOf, planSession, type SessionConflict, type SessionPlan } from './session-plan.ts';
import type { ReplicationTarget } from './target.ts';
import { targetOf } from './targets.ts';

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

/** What a delivery looks at and takes its turns with. */
export interface DeliveryGround {
  readonly tools: DeliveryTools;
  readonly layout: ProtectedLayout;
  readonly delivered: () => Delivered;
  /** While the work runs, the chain is neither cut nor merged nor joined. */
  readonly alone: <T>(work: () => Promise<T>) => Promise<T>;
  /** A target has told of a claim to the machine that is higher than the epoch of its copies. */
  readonly heard: (claim: Claim) => Promise<unknown>;
}

export type ReplicateOutcome =
  /** With `isUnready` there will be something by itself. */
  | { readonly kind: 'nothing'; readonly isUnready?: true }
  | {
      readonly kind: 'sent';
      readonly acknowledgement: Acknowledgement;
      readonly wireBytes: number;
      /** What the target took from an older copy instead. */
      readonly olderBytes?: number;
    }
  | { readonly kind: 'acknowledged'; readonly acknowledgement: Acknowledgement };

/**
 * The delivery of one machine to one target: how far the target is, the digests of what it has acknowledged, and the
 * delta on its way. Callers see to it that `deliver` runs once at a time.
 */
export class Delivery {
  readonly #tools: DeliveryTools;
  readonly #layout: ProtectedLayout;
  readonly #digests: AcknowledgedDigests;
  readonly #machine: () => Delivered;
  readonly #alone: DeliveryGround['alone'];
  readonly #heard: DeliveryGround['heard'];
  /** Copies go as they come, however far apart the target wants them. */
  isHurried = false;
  /** One delta, or one seed, at a time. */
  readonly sending = new Mutex();
  #record: TargetRecord;
  #readingCutId: string | undefined;
  #send: SendSession | undefined;
  /** Ends the transfer of a complete copy. */
  #breakOff: AbortController | undefined;
  readonly #storing = new Mutex();

  private constructor({ tools, layout, delivered, alone, heard }: DeliveryGround, record: TargetRecord) {
    this.#tools = tools;
    this.#layout = layout;
    this.#machine = delivered;
    this.#alone = alone;
    this.#heard = heard;
    this.#record = record;
    const directory = record.ownLeaves ? layout.leavesOf(record.siteId) : layout.leaves;
    this.#digests = new AcknowledgedDigests(tools, directory, delivered);
  }

  /** Begins with a target that has nothing of the machine yet. Durable on return. */
  static async begin(
    ground: DeliveryGround,
    siteId: string,
    o: { readonly seed: boolean; readonly ownLeaves: boolean },
  ): Promise<Delivery> {
    const record: TargetRecord = {
      ...{ siteId, acknowledged: null, session: null },
      ...(o.ownLeaves ? { ownLeaves: true } : {}),
    };
    const delivery = new Delivery(ground, record);
    await delivery.#store(o.seed ? { seed: { state: 'wanted' } } : {});
    return delivery;
  }

  /** Goes on with what an earlier process has recorded. */
  static async open(ground: DeliveryGround, siteId: string): Promise<Delivery> {
    const { files } = ground.tools;
    const record = await loadRecord(files, ground.layout.target(siteId), TARGET_RECORD);
    return new Delivery(ground, record ?? { siteId, acknowledged: null, session: null });
  }

  get record(): TargetRecord {
    return this.#record;
  }

  /** What the chain must heed of this target. */
  get place(): TargetPlace {
    return placeOf(this.#record, this.#readingCutId);
  }

  get progress(): SendProgress | undefined {
    return this.#send?.progress;
  }

  /**
   * Brings the target one point further, if there is one to send. Throws REPLICATION_CONFLICT with the evidence. When an
   * upload that came late has taken the target somewhere else meanwhile, or an older copy there has changed, the next step is
   * planned anew at once.
   */
  async deliver(target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome> {
    try {
      return await this.#deliverNext(target, signal);
    } catch (error) {
      if (!isFailure(error, 'REPLICA_SESSION_OUTDATED', 'REPLICA_OLDER_COPY_CHANGED')) throw error;
      return this.#deliverNext(target, signal);
    }
  }

  async #deliverNext(target: ReplicationTarget, signal?: AbortSignal): Promise<ReplicateOutcome> {
    const known = this.#record.acknowledged?.pointId;
    const replica = await describedTo(target, this.#machine().record, this.#tools.siteId, signal, known);
    if (this.#record.seed?.state === 'awaited' && replica?.newest?.level === 'verified') {
      // It has come: from here on the target's points are whole.
      await this.#store({ seed: undefined });
    }
    try {
      const plan = await this.#alone(async () => this.#planned(replica));
      return await this.#carryOut(target, plan, signal);
    } finally {
      this.#readingCutId = undefined;
    }
  }

  /** From here on no file of the chain of the planned cut is written. */
  #planned(replica: ReplicaDescription | null): SessionPlan {
    const { record, cuts } = this.#machine();
    const options = { ...this.#policy, siteId: this.#tools.siteId };
    const plan = planSession(record.epoch, cuts, this.#record, replica, options);
    const isRead = plan.kind === 'full' || plan.kind === 'incremental' || plan.kind === 'acknowledged';
    if (isRead) this.#readingCutId = plan.cut.cutId;
    return plan;
  }

  async #carryOut(
    target: ReplicationTarget,
    plan: SessionPlan,
    signal?: AbortSignal,
  ): Promise<ReplicateOutcome> {
    switch (plan.kind) {
      case 'nothing':
        return plan;
      case 'conflict':
        return this.#conflict(plan.conflict);
      case 'acknowledged':
        return this.#adoptAcknowledgement(plan.cut, plan.newest);
      case 'caught':
        return this.#adoptUnread(plan.cut, plan.newest);
      case 'announce':
        return this.#announce(target, plan, signal);
      default:
        return this.#transfer(target, plan, signal);
    }
  }

  /** Throws REPLICATION_CONFLICT, PROTECTION_FENCED, PROTECTION_CEDED, unless the claim that was heard is this site's own. */
  async #conflict(conflict: SessionConflict): Promise<ReplicateOutcome> {
    if (conflict.why !== 'fenced') throw conflictFailure(this.#machine().record.name, conflict);
    const { theirEpoch, holderSiteId = this.#record.siteId } = conflict;
    await this.#heard({ epoch: theirEpoch, siteId: holderSiteId });
    checkHeld(this.#machine().record);
    return { kind: 'nothing', isUnready: true };
  }

  get #policy(): TargetPolicy {
    const { protection } = this.#machine().record;
    const policy = protection && targetOf(protection, this.#record.siteId);
    assert(policy, 'only a protected machine is delivered, and to its targets');
    return this.isHurried ? { ...policy, spacingMs: undefined } : policy;
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

  /** Removes what a cancelled export of a seed to this path has left. May be repeated. */
  dropSeed(path: string): Promise<void> {
    return this.sending.run(() => dropSeed(this.#tools, this.#machine(), this.#record, path));
  }

  async #exportFirst(path: string, o: SeedExportOptions): Promise<SeedExported> {
    const cut = await this.#alone(async () => {
      const first = firstOf(this.#machine(), this.#record);
      assert(first !== undefined, 'a machine that is seeded has a cut');
      this.#readingCutId = first.cutId;
      return first;
    });
    try {
      return await this.#exportCut(cut, path, o);
    } finally {
      this.#readingCutId = undefined;
    }
  }

  async #exportCut(cut: CutRecord, path: string, o: SeedExportOptions): Promise<SeedExported> {
    const { record } = this.#machine();
    const about = { machineName: record.name, sequence: 1, pointId: cut.cutId };
    const { file, known } = await seedPath(this.#tools.files, path, about);
    const { seed } = this.#record;
    if (known && seed?.state === 'exported') return exportedAs(file, known);
    // Its end was not recorded: what is there is gone on with.
    if (known) await this.#tools.files.rename(file, partialOf(file));
    const plan = { kind: 'full' as const, cut, sequence: 1, parent: null, resume: undefined };
    await using sending = await this.#open(plan, cut.cutId, o.signal);
    const { bytes, sent } = await writeSeedOf(this.#tools, sending, file, o);
    await this.#recordExport(cut, sent);
    return { path: file, pointId: cut.cutId, sequence: 1, bytes };
  }

  /** Digests first, then the word that the seed is there. */
  async #recordExport(cut: CutRecord, sent: SentDelta): Promise<void> {
    await this.#digests.save(1, sent);
    await this.#store({ seed: { state: 'exported', cutId: cut.cutId, signed: sent.signed } });
  }

  /** Tells the target what its base will be, with the digests upon which it can prove what comes before that. */
  async #announce(
    target: ReplicationTarget,
    { cut, signed }: Extract<SessionPlan, { kind: 'announce' }>,
    signal?: AbortSignal,
  ): Promise<ReplicateOutcome> {
    const { clock, random, files } = this.#tools;
    const { name } = this.#machine().record;
    const paths = signed.statement.disks.map(({ diskId }) => this.#digests.path(diskId, 1));
    let wireBytes = 0;
    const counted = observed(leavesStream(files, paths), ({ length }) => {
      wireBytes += length;
    });
    const leaves = this.#throttled(counted);
    const announcement = { session: newId(clock, random), signed };
    const details = { machineName: name, retention: this.#policy.retention };
    const acknowledgement = await target.seeds.announce(announcement, details, leaves, signal);
    checkAcknowledged(acknowledgement, cut.cutId, statementDigest(signed.statement));
    await this.#recordAcknowledgement(cut, acknowledgement, signed);
    return { kind: 'sent', acknowledgement, wireBytes };
  }

  /** No faster than the policy allows at each moment. */
  #throttled(stream: AsyncIterable<Uint8Array>) {
    const { clock, zones } = this.#tools;
    const limit = () => limitAt(this.#policy, clock.wallMs(), zones);
    return throttled(stream, { bytesPerSecond: limit, clock });
  }

  /** Why the files here may not be what the target acknowledged, see `AcknowledgedDigests`. */
  doubtOfAcknowledged(only?: readonly string[], at = this.#machine()): Promise<string | undefined> {
    return this.#digests.doubt(this.#record, only, at);
  }

  /** Removes every record of this delivery. The target keeps its points. */
  async remove(): Promise<void> {
    await this.#tools.files.remove(this.#layout.target(this.#record.siteId));
    await this.#digests.remove();
  }

  async #transfer(target: ReplicationTarget, plan: SendPlan, asked?: AbortSignal): Promise<ReplicateOutcome> {
    const { clock, random } = this.#tools;
    const { name } = this.#machine().record;
    const { retention, compression } = this.#policy;
    const session = plan.resume ?? newId(clock, random);
    const { cutId } = plan.cut;
    const breakOff = new AbortController();
    const signal = asked ? AbortSignal.any([asked, breakOff.signal]) : breakOff.signal;
    // A complete copy gives way to a seed as soon as somebody wants that.
    if (plan.kind === 'full') this.#breakOff = breakOff;
    try {
      const wholeBlocks = plan.resume
        ? this.#record.session?.wholeBlocks
        : this.#record.seed?.state === 'awaited';
      const { epoch } = this.#machine().record;
      await this.#store({
        session: { session, cutId, ...(wholeBlocks ? { wholeBlocks } : {}), ...(epoch > 1 ? { epoch } : {}) },
      });
      await using sending = await this.#open(plan, session, signal);
      this.#send = sending;
      const header = deltaHeader(this.#machine(), this.#record, plan, session);
      const { acknowledgement, sent } = await transferDelta({
        ...{ target, sending, header, compression, signal },
        details: { machineName: name, retention },
        throttled: (stream) => this.#throttled(stream),
      });
      // Awaited here: what fails must not fail unheard while the files are being closed.
      return await this.#accept(plan.cut, acknowledgement, sent);
    } catch (error) {
      if (breakOff.signal.aborted && !asked?.aborted) return { kind: 'nothing' };
      throw error;
    } finally {
      this.#breakOff = undefined;
      this.#send = undefined;
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
    const { session } = this.#record;
    const sentIn = session?.cutId === cut.cutId ? epochOf(session) : undefined;
    await using sending = await this.#open(plan, newest.pointId, undefined, sentIn);
    const outcome = await this.#accept(cut, newest, await sending.readThrough());
    return outcome.kind === 'sent' ? { kind: 'acknowledged', acknowledgement: newest } : outcome;
  }

  /** `epoch` is that in which the delta was sent, where that was before. */
  async #open(
    plan: SendPlan,
    session: string,
    signal: AbortSignal | undefined,
    epoch?: number,
  ): Promise<SendSession> {
    const { record, ...machine } = this.#machine();
    const delivered = { ...machine, record: epoch === undefined ? record : { ...record, epoch } };
    const trees = plan.parent ? await this.#digests.trees(this.#record, plan.cut) : new Map();
    const request = deltaRequest(this.#tools, delivered, this.#record, plan, session);
    return SendSession.open({ ...request, trees, ...(signal ? { signal } : {}) });
  }

  /** Records an acknowledgement: digests first, then the word that layers may go, then the layers. */
  async #accept(
    cut: CutRecord,
    acknowledgement: Acknowledgement,
    sent: SentDelta,
  ): Promise<ReplicateOutcome> {
    checkAcknowledged(acknowledgement, cut.cutId, sent.statementDigest);
    await this.#digests.save(acknowledgement.sequence, sent);
    await this.#recordAcknowledgement(cut, acknowledgement, sent.signed);
    const { wireBytes, olderBytes } = sent;
    return { kind: 'sent', acknowledgement, wireBytes, ...(olderBytes > 0 ? { olderBytes } : {}) };
  }

  async #recordAcknowledgement(
    cut: CutRecord,
    acknowledgement: Acknowledgement,
    signed: SignedStatement,
  ): Promise<void> {
    await this.#store({
      acknowledged: this.#acknowledgedAs(cut, acknowledgement),
      session: null,
      outrun: undefined,
      seed: acknowledgement.level === 'awaiting-seed' ? { state: 'awaited', signed } : undefined,
    });
  }

  #acknowledgedAs(
    { ordinal, cutAtMs, sizes }: Pick<CutRecord, 'ordinal' | 'cutAtMs' | 'sizes'>,
    { pointId, sequence, statementDigest }: Acknowledgement,
  ): NonNullable<TargetRecord['acknowledged']> {
    const atMs = this.#tools.clock.wallMs();
    return { pointId, ordinal, sequence, statementDigest, atMs, cutAtMs, ...(sizes ? { sizes } : {}) };
  }

  /**
   * The layers of these cuts are about to be merged: what of them the target lacks is recorded. Durable on return, and only
   * then may the first of them be merged. A delta that had begun is another one afterwards.
   */
  async outrunBy(due: readonly CutRecord[]): Promise<void> {
    const { record, cuts } = this.#machine();
    const outrun = await outrunBy(this.#tools.images, record.disks, cuts, this.#record, due);
    if (outrun) await this.#store({ outrun, session: null });
  }

  /** The target has a point that cannot be read as it was sent: layers may be merged away. */
  async #adoptUnread(cut: UnsureCut, newest: Acknowledgement): Promise<ReplicateOutcome> {
    const { acknowledged, outrun } = this.#record;
    assert(outrun !== undefined, 'only a target that was outrun is caught up with unread');
    const borders = acknowledged
      ? await this.#digests.carryOver(acknowledged.sequence, newest.sequence, cut.sizes)
      : new Map<string, Extents>();
    await this.#store({
      acknowledged: this.#acknowledgedAs(cut, newest),
      session: null,
      outrun: outrunSince(outrun, cut, borders),
    });
    return { kind: 'acknowledged', acknowledgement: newest };
  }

  /** One at a time, because a person may ask for a seed while a delta is on its way. */
  #store(change: { [K in keyof TargetRecord]?: TargetRecord[K] | undefined }): Promise<void> {
    return this.#storing.run(async () => {
      const { seed, outrun, ...target } = { ...this.#record, ...change } as TargetRecord;
      const record = { ...target, ...(seed ? { seed } : {}), ...(outrun ? { outrun } : {}) };
      await this.#tools.files.makeDirectory(this.#layout.targets);
      await storeRecord(this.#tools.files, this.#layout.target(record.siteId), targetKind(record), record);
      this.#record = record;
    });
  }
}

function seedNotNeeded(machine: string): Error {
  return replicationFailure('REPLICATION_SEED_NOT_NEEDED', `${machine} has been replicated already`, {
    context: { machine },
  });
}
