import { assert } from '../lib/assert.ts';
import { isFailure } from '../lib/errors.ts';
import { Mutex } from '../lib/mutex.ts';
import { newId, type Random } from '../lib/random.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { throttled } from '../peer/index.ts';
import { limitAt, type PointStatement } from '../recovery-point/index.ts';
import type { Acknowledgement, Replica, ReplicaPoint, ReplicaTools } from '../replica/index.ts';
import { conflictFailure } from './conflict.ts';
import type { ReplicateOutcome } from './delivery.ts';
import { checkAcknowledged, transferDelta } from './delta-transfer.ts';
import { replicationFailure } from './errors.ts';
import { FORWARD_RECORD, type ForwardPolicy, type ForwardRecord } from './forward-records.ts';
import { type ForwardedDelta, ForwardedDigests } from './forwarded-digests.ts';
import type { Origin } from './origin.ts';
import type { TargetRecord } from './records.ts';
import { HEADER_DEFAULTS, type SendProgress, SendSession } from './send-session.ts';
import { planSession, type Sendable, type SessionPlan } from './session-plan.ts';
import type { ReplicationTarget } from './target.ts';

export interface ForwardTools extends Pick<ReplicaTools, 'files' | 'images' | 'clock' | 'log' | 'zones'> {
  readonly random: Random;
}

/** A point as the planner sees it. */
interface SendablePoint extends Sendable {
  readonly point: ReplicaPoint;
}

type ForwardPlan = Extract<SessionPlan<SendablePoint>, { kind: 'full' | 'incremental' }>;

/**
 * The points of a replica on their way to one more site. It gets each point as its origin signed it, under the same number; what
 * it lacks of a point is told by the digests of the two states, and never by layers: those may be merged as retention likes.
 * Only the point whose delta has begun is to stay (`heldPointId`), so that the same frames can be sent again.
 */
export class Forwarding {
  readonly replica: Replica;
  readonly #tools: ForwardTools;
  readonly #digests: ForwardedDigests;
  /** One delta at a time. */
  readonly #sending = new Mutex();
  readonly #storing = new Mutex();
  #record: ForwardRecord;
  #send: SendSession | undefined;
  #heldPointId: string | undefined;

  private constructor(tools: ForwardTools, replica: Replica, record: ForwardRecord) {
    this.#tools = tools;
    this.replica = replica;
    this.#record = record;
    this.#digests = new ForwardedDigests(tools, replica, record.policy.siteId);
  }

  /** Begins to forward to a site. Durable on return. */
  static async begin(tools: ForwardTools, replica: Replica, policy: ForwardPolicy): Promise<Forwarding> {
    const progress = { siteId: policy.siteId, acknowledged: null, session: null };
    const forwarding = new Forwarding(tools, replica, { policy, progress });
    await forwarding.#store({});
    return forwarding;
  }

  /** Goes on with what earlier processes have recorded of a replica. */
  static async openAll(tools: ForwardTools, replica: Replica): Promise<Forwarding[]> {
    const { files } = tools;
    const { layout } = replica;
    const opened: Forwarding[] = [];
    for (const name of (await files.list(layout.forwards)) ?? []) {
      if (!name.endsWith('.json')) continue;
      const siteId = name.slice(0, -'.json'.length);
      const record = await loadRecord(files, layout.forward(siteId), FORWARD_RECORD);
      if (record) opened.push(new Forwarding(tools, replica, record));
    }
    return opened;
  }

  get policy(): ForwardPolicy {
    return this.#record.policy;
  }

  get record(): TargetRecord {
    return this.#record.progress;
  }

  get progress(): SendProgress | undefined {
    return this.#send?.progress;
  }

  /** What the site lacks of the points that it is to get, the oldest first. */
  get unsent(): readonly ReplicaPoint[] {
    const since = this.record.acknowledged?.sequence ?? 0;
    return this.#wanted.filter(({ statement }) => statement.sequence > since);
  }

  /** Retention leaves this point: its delta has begun. */
  get heldPointId(): string | undefined {
    return this.#heldPointId ?? this.record.session?.cutId;
  }

  get #wanted(): readonly ReplicaPoint[] {
    const { copyTypes } = this.policy;
    const { points } = this.replica;
    return copyTypes ? points.filter(({ statement }) => copyTypes.includes(statement.copyType)) : points;
  }

  /** What may be sent next, and what the site has or may have, also when it is to get no more of that type. */
  #sendable(newestThere: string | undefined): SendablePoint[] {
    const wanted = new Set(this.#wanted);
    const known = [newestThere, this.heldPointId];
    return this.replica.points
      .filter((point) => wanted.has(point) || known.includes(point.statement.pointId))
      .map(sendableOf);
  }

  /** From now on the site gets this. Durable on return. */
  change(policy: ForwardPolicy): Promise<void> {
    assert(policy.siteId === this.policy.siteId, 'a forwarding goes to one site');
    return this.#store({ policy });
  }

  /** Removes the record: nothing more is forwarded, and the site keeps what it has. */
  end(): Promise<void> {
    return this.#sending.run(async () => {
      const { files } = this.#tools;
      const { layout } = this.replica;
      await files.remove(layout.forward(this.policy.siteId));
      await files.syncDirectory(layout.forwards);
      await this.#digests.remove();
    });
  }

  /**
   * Brings the site one point further, if there is one that it lacks. Throws REPLICATION_CONFLICT with the evidence, and
   * REPLICATION_FORWARD_DAMAGED if the replica here does not read as was signed.
   */
  forward(target: ReplicationTarget, origin: Origin, signal?: AbortSignal): Promise<ReplicateOutcome> {
    return this.#sending.run(async () => {
      try {
        return await this.#forwardNext(target, origin, signal);
      } catch (error) {
        if (!isFailure(error, 'REPLICA_SESSION_OUTDATED')) throw error;
        return await this.#forwardNext(target, origin, signal);
      }
    });
  }

  async #forwardNext(
    target: ReplicationTarget,
    origin: Origin,
    signal: AbortSignal | undefined,
  ): Promise<ReplicateOutcome> {
    const { machineId, machineName } = this.replica.record;
    const { newest } = this.replica;
    if (!newest || this.replica.awaitsSeed) return { kind: 'nothing' };
    const there = await target.describe(machineId, signal);
    if (there?.newest) await this.#takeAsKnown(there.newest);
    const { epoch } = newest.statement;
    const { spacingMs } = this.policy;
    const sendable = this.#sendable(there?.newest?.pointId);
    const plan = planSession(epoch, sendable, this.record, there, { spacingMs, areNumbered: true });
    switch (plan.kind) {
      case 'nothing':
        return plan;
      case 'conflict':
        throw conflictFailure(machineName, plan.conflict, true);
      case 'acknowledged':
        return this.#adopt(plan.cut.point, plan.newest);
      case 'full':
      case 'incremental':
        return this.#transfer(target, origin, plan, signal);
      case 'announce':
      case 'caught':
        return seedless(plan.kind);
    }
  }

  /**
   * Nothing was ever forwarded, as far as is known here, but the site has points of the machine that have come from here once and
   * are merged away since: it is gone on from there, though it is not known what they hold.
   */
  async #takeAsKnown({ pointId, sequence, statementDigest }: Acknowledgement): Promise<void> {
    const { points, newest } = this.replica;
    if (this.record.acknowledged || points.some(({ statement }) => statement.pointId === pointId)) return;
    if (newest === undefined || sequence >= newest.statement.sequence) return;
    const atMs = this.#tools.clock.wallMs();
    await this.#storeProgress({
      acknowledged: { pointId, ordinal: sequence, sequence, statementDigest, atMs },
    });
  }

  /** The site has a point whose acknowledgement never arrived. */
  async #adopt(point: ReplicaPoint, newest: Acknowledgement): Promise<ReplicateOutcome> {
    checkAcknowledged(newest, point.statement.pointId, point.statementDigest);
    const { acknowledged } = this.record;
    const delta = await this.replica.undisturbed(() => this.#digests.delta(point, acknowledged));
    await this.#accept(point, newest, delta);
    return { kind: 'acknowledged', acknowledgement: newest };
  }

  async #transfer(
    target: ReplicationTarget,
    origin: Origin,
    plan: ForwardPlan,
    signal: AbortSignal | undefined,
  ): Promise<ReplicateOutcome> {
    const { clock, random } = this.#tools;
    const { statement, manifest } = plan.cut.point;
    // From here on retention leaves it; it may have taken it just before.
    this.#heldPointId = statement.pointId;
    const point = this.replica.point(statement.pointId);
    const release = await this.replica.holdLayers();
    try {
      const { delta, opened } = await this.replica.undisturbed(async () => {
        const lacking = await this.#digests.delta(point, this.record.acknowledged);
        const begun = { session: plan.resume ?? newId(clock, random), lacking };
        return { delta: lacking, opened: await this.#openAs(plan, begun, signal) };
      });
      const { session } = opened;
      await using sending = opened.sending;
      await this.#storeProgress({
        session: { session, cutId: statement.pointId, ranges: sending.rangesDigest },
      });
      this.#send = sending;
      const { retention, compression } = this.policy;
      const { acknowledgement, sent } = await transferDelta({
        ...{ target, sending, compression, signal, header: headerOf(plan, session) },
        details: {
          ...{ machineName: this.replica.record.machineName, retention },
          forwarded: { origin, skewMs: manifest.skewMs },
        },
        throttled: (stream) => this.#throttled(stream),
      });
      checkAcknowledged(acknowledgement, statement.pointId, sent.statementDigest);
      await this.#accept(point, acknowledgement, delta);
      return { kind: 'sent', acknowledgement, wireBytes: sent.wireBytes };
    } catch (error) {
      throw isFailure(error, 'REPLICATION_SEED_CHANGED') ? damaged(point, error) : error;
    } finally {
      this.#send = undefined;
      this.#heldPointId = undefined;
      release();
    }
  }

  /** Goes on with a session only if the same is sent: a merge may have come in between, and what the layers tell is more then. */
  async #openAs(
    plan: ForwardPlan,
    { session, lacking }: { readonly session: string; readonly lacking: ForwardedDelta },
    signal: AbortSignal | undefined,
  ): Promise<{ readonly session: string; readonly sending: SendSession }> {
    const sending = await this.#open(plan, session, lacking, signal);
    const before = this.record.session;
    const isOther = before?.session === session && before.ranges !== sending.rangesDigest;
    if (!isOther) return { session, sending };
    await sending[Symbol.asyncDispose]();
    const anew = newId(this.#tools.clock, this.#tools.random);
    return { session: anew, sending: await this.#open(plan, anew, lacking, signal) };
  }

  #open(
    plan: ForwardPlan,
    session: string,
    { before, changed, unknown }: ForwardedDelta,
    signal: AbortSignal | undefined,
  ): Promise<SendSession> {
    const { statement, manifest } = plan.cut.point;
    const diskIds = statement.disks.map(({ diskId }) => diskId);
    const since = this.record.acknowledged?.sequence;
    const layers = diskIds.flatMap((diskId) => {
      const count = unknown.has(diskId) ? undefined : this.#layersSince(since, statement, diskId);
      return count === undefined ? [] : [[diskId, count] as const];
    });
    return SendSession.open({
      ...{ images: this.#tools.images, said: { signed: manifest.signed }, trees: before, changed },
      header: headerOf(plan, session),
      chains: Object.fromEntries(
        diskIds.map((diskId) => [diskId, this.replica.chain(statement.pointId, diskId)]),
      ),
      layers: Object.fromEntries(layers),
      ...(signal ? { signal } : {}),
    });
  }

  /**
   * How many layers of a disk hold all that changed since an acknowledged point, to the sub-cluster where digests tell a block
   * alone. If that point is merged into a younger one, they hold more than that; undefined if it is in the oldest layer.
   */
  #layersSince(since: number | undefined, { pointId }: PointStatement, diskId: string): number | undefined {
    if (since === undefined) return undefined;
    const { replica } = this;
    const below = replica.points.findLast(({ statement }) => statement.sequence <= since);
    if (!below?.statement.disks.some((disk) => disk.diskId === diskId)) return undefined;
    return replica.chain(pointId, diskId).length - replica.chain(below.statement.pointId, diskId).length;
  }

  #throttled(stream: AsyncIterable<Uint8Array>) {
    const { clock, zones } = this.#tools;
    const limit = () => limitAt(this.policy, clock.wallMs(), zones);
    return throttled(stream, { bytesPerSecond: limit, clock });
  }

  /** Digests first, then the word that they are those of the acknowledged state. */
  async #accept(point: ReplicaPoint, acknowledgement: Acknowledgement, delta: ForwardedDelta): Promise<void> {
    const { pointId, sequence, statementDigest } = acknowledgement;
    const { disks } = point.statement;
    await this.#digests.save(sequence, delta);
    const sizes = Object.fromEntries(disks.map(({ diskId, sizeBytes }) => [diskId, sizeBytes]));
    const atMs = this.#tools.clock.wallMs();
    await this.#storeProgress({
      acknowledged: {
        pointId,
        ordinal: sequence,
        sequence,
        statementDigest,
        atMs,
        cutAtMs: cutAtOf(point),
        sizes,
      },
      session: null,
    });
  }

  #storeProgress(change: Partial<TargetRecord>): Promise<void> {
    return this.#store({ progress: { ...this.record, ...change } });
  }

  #store(change: Partial<ForwardRecord>): Promise<void> {
    return this.#storing.run(async () => {
      const { files } = this.#tools;
      const { layout } = this.replica;
      const record = { ...this.#record, ...change };
      await files.makeDirectory(layout.forwards);
      await storeRecord(files, layout.forward(record.policy.siteId), FORWARD_RECORD, record);
      await files.syncDirectory(layout.directory);
      this.#record = record;
    });
  }
}

function sendableOf(point: ReplicaPoint): SendablePoint {
  const { pointId, sequence } = point.statement;
  const cutAtMs = cutAtOf(point);
  return { point, cutId: pointId, ordinal: sequence, cutAtMs, state: 'sealed', merged: false };
}

/** When the origin cut it, on the clock here. */
function cutAtOf({ manifest }: ReplicaPoint): number {
  return Math.round(manifest.cutAtHereMs);
}

function headerOf({ cut: { point }, parent }: ForwardPlan, session: string) {
  const { machineId, pointId, sequence, epoch, disks } = point.statement;
  return {
    ...{ session, machineId, pointId, sequence, epoch, parent },
    disks: disks.map(({ diskId, sizeBytes }) => ({ diskId, sizeBytes })),
    ...HEADER_DEFAULTS,
  };
}

/** Neither seeds nor merged layers are ever on the record of a forwarding. */
function seedless(kind: string): never {
  throw new Error(`a forwarding was planned as ${kind}`);
}

function damaged({ statement: { pointId, machineName } }: ReplicaPoint, cause: Error): Error {
  const said = `point ${pointId} of ${machineName} does not read here as it was signed`;
  return replicationFailure('REPLICATION_FORWARD_DAMAGED', said, { context: { pointId }, cause });
}
