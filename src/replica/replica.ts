import type { DigestTree } from '../delta/index.ts';
import type { ImageFile } from '../hypervisor/index.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import type { KeptRecord } from '../lib/kept-record.ts';
import { Mutex } from '../lib/mutex.ts';
import {
  type RetentionPolicy,
  type RetentionVerdict,
  type SignedStatement,
  statementDigest,
} from '../recovery-point/index.ts';
import { listBranches } from './branch.ts';
import {
  type Acknowledgement,
  acknowledgementOf,
  checkEpoch,
  checkNotNeeded,
  checkReceiving,
  diskIdsOf,
  type Incoming,
  mergeUnfinished,
  type ReplicaDescription,
  type ReplicaPoint,
  removedFailure,
  standingOf,
} from './description.ts';
import { replicaFailure } from './errors.ts';
import type { ReplicaLayout } from './layout.ts';
import { loadPoints, loadState, loadTree, mergeTools, type ReplicaState } from './loading.ts';
import { type MergeTools, pendingMerge, redoMerge, runMerge } from './merge.ts';
import { planMerge } from './merge-plan.ts';
import { answerOffer, type Offer, type OfferAnswer } from './offer.ts';
import { PointList } from './point-list.ts';
import { discardSession, publishReceived } from './publication.ts';
import type { ReceiveSession } from './receive-session.ts';
import { createSession, isLost, openSession, type ReceiveOptions, takeStream } from './receive-stream.ts';
import {
  type BranchRecord,
  type MergeIntent,
  type ReplicaRecord,
  type ReplicaUpdate,
  updated,
} from './records.ts';
import { createReplicaFiles, keepReplica, openReplicaRecord, withoutHome } from './replica-record-file.ts';
import { type Others, type Proven, verdictsOf } from './retention-facts.ts';
import { areAwaitingSeed, awaitingSeed, Seeding } from './seeding.ts';
import type { SeedAnnouncement } from './stand-in.ts';
import type { ReplicaTools } from './tools.ts';
import { findUnmerged, type InterruptedMerge } from './unmerged.ts';

/**
 * The replica of one machine: a chain of layers for every disk, the manifests that make points of them, and what is
 * on its way in. One object per machine and process; methods that change files exclude each other.
 */
export class Replica {
  readonly layout: ReplicaLayout;
  readonly #tools: ReplicaTools;
  /** Deltas come in one at a time. That takes as long as a line is slow, so nothing else waits for it. */
  readonly #receiving = new Mutex();
  readonly #writing = new Mutex();
  readonly #kept: KeptRecord<ReplicaRecord>;
  #points: PointList;
  #branches: readonly BranchRecord[];
  readonly #seeding: Seeding;
  #trees: ReadonlyMap<string, DigestTree>;
  #incoming: Incoming | null;
  /** How many readers have chains of this replica open; the oldest layer is not folded into meanwhile. */
  #readers = 0;
  /** A failure has left the directory ahead of what is known here: it is read again before anything else is done. */
  #isOutdated = false;
  /** How many uploads have come in and not ended. */
  #uploads = 0;
  /** Its files are going, or gone: nothing is done with them any more. */
  #isGivenUp = false;

  private constructor(o: {
    layout: ReplicaLayout;
    tools: ReplicaTools;
    kept: KeptRecord<ReplicaRecord>;
    branches: readonly BranchRecord[];
    state: ReplicaState;
  }) {
    this.layout = o.layout;
    this.#tools = o.tools;
    this.#kept = o.kept;
    this.#branches = o.branches;
    this.#points = o.state.points;
    this.#trees = o.state.trees;
    this.#incoming = o.state.incoming;
    this.#seeding = new Seeding({
      ...{ replica: this, tools: o.tools },
      changing: (work) => this.changingPoints(work),
    });
  }

  /** Makes the directory of a machine that is replicated here for the first time. */
  static async create(tools: ReplicaTools, layout: ReplicaLayout, record: ReplicaRecord): Promise<Replica> {
    await createReplicaFiles(tools.files, layout, record);
    return Replica.open(tools, layout);
  }

  /**
   * Opens a replica from its directory alone: ends what a killed process left half done, sweeps what was never
   * published, and checks that points and layers fit together. Throws REPLICA_CHAIN_BROKEN, REPLICA_LAYER_MISSING.
   */
  static async open(tools: ReplicaTools, layout: ReplicaLayout, merge?: InterruptedMerge): Promise<Replica> {
    const kept = await openReplicaRecord(tools, layout);
    const state = await loadState(tools, layout, kept.now.machineId, merge);
    const branches = await listBranches(tools.files, layout);
    return new Replica({ layout, tools, kept, branches, state });
  }

  get record(): ReplicaRecord {
    return this.#kept.now;
  }

  /** The points there are, the oldest first. */
  get points(): readonly ReplicaPoint[] {
    return this.#points.listed;
  }

  get newest(): ReplicaPoint | undefined {
    return this.#points.newest;
  }

  point(pointId: string): ReplicaPoint {
    const found = this.points.find((point) => point.statement.pointId === pointId);
    if (found) return found;
    throw replicaFailure('REPLICA_UNKNOWN', `${this.record.machineName} has no point ${pointId}`, {
      context: { pointId },
      hint: 'List the points there are with `warmsite point list`.',
    });
  }

  describe(): ReplicaDescription {
    const newest = this.newest;
    return {
      ...standingOf(this.record),
      newest: newest ? acknowledgementOf(newest, this.awaitsSeed) : null,
      incoming: this.#incoming,
    };
  }

  /** The files of a disk at a point, the oldest first. */
  chain(pointId: string, diskId: string): ImageFile[] {
    const layers = this.#points.upTo(this.point(pointId)).layers(diskId);
    return layers.map((layer) => ({ path: this.layout.layer(diskId, layer), format: 'qcow2' }));
  }

  /** Decides on a delta that is offered; makes its session if it is taken. */
  offer(offer: Offer): Promise<OfferAnswer> {
    return this.#receiving.run(async () => {
      this.#checkThere();
      checkReceiving(this.record, offer.header);
      await this.#catchUp();
      const { newest } = this;
      const known = newest && { now: newest.statement.disks, ever: this.#points.diskIds };
      const answer = answerOffer(offer.header, this.describe(), known, this.record);
      if (answer.kind !== 'accept') return answer;
      if (this.#incoming && this.#incoming.session !== offer.header.session) {
        await discardSession(this.#tools.files, this.layout, this.#incoming.session);
        this.#incoming = null;
      }
      if (!this.#incoming) {
        // Should this fail, what there is of it is found and used or swept at the next offer.
        this.#isOutdated = true;
        const incoming = await createSession(this.#tools, this.layout, offer, newest);
        this.#isOutdated = false;
        this.#incoming = incoming;
      }
      return { kind: 'accept', session: this.#incoming.session, progress: this.#incoming.progress };
    });
  }

  /**
   * Takes the stream of an accepted delta. On return the point is published: durable, read back and equal to what
   * was signed. When the stream breaks, what has arrived is made durable before the failure is thrown, so that the
   * next offer of the same session goes on from there. Content that differs from the statement throws
   * REPLICA_CONTENT_DIFFERS and discards the session.
   */
  receive(
    sessionId: string,
    source: AsyncIterable<Uint8Array>,
    o: ReceiveOptions = {},
  ): Promise<Acknowledgement> {
    this.#uploads += 1;
    const received = this.#receiving.run(async () => {
      await this.#catchUp();
      if (this.#incoming?.session !== sessionId) {
        throw replicaFailure('REPLICA_SESSION_UNKNOWN', `no delta ${sessionId} has been accepted`);
      }
      // One whose files do not fit its record is worth nothing; the delta is sent anew.
      const session = await openSession(this.#tools.files, this.layout, sessionId, () => {
        this.#isOutdated = true;
      });
      const { signed, receivedBytes } = await this.#readStream(session, source, o);
      try {
        const acknowledgement = await this.#write(() => this.#publish(session, signed, receivedBytes));
        await session.release();
        return acknowledgement;
      } catch (error) {
        // The point may be decided upon or even listed: only the directory knows.
        this.#isOutdated = true;
        await this.#breakOff(session, error);
        throw error;
      }
    });
    return received.finally(() => {
      this.#uploads -= 1;
    });
  }

  /** Reads the directory again after a failure that left it ahead of this object, as opening it does. */
  #catchUp(): Promise<void> {
    if (!this.#isOutdated) return Promise.resolve();
    return this.#write(async () => {
      const unfinished = await pendingMerge(mergeTools(this.#tools, this.layout));
      if (unfinished?.kind === 'fold' && this.#readers > 0) {
        throw mergeUnfinished();
      }
      const state = await loadState(this.#tools, this.layout, this.record.machineId);
      this.#points = state.points;
      this.#trees = state.trees;
      this.#incoming = state.incoming;
      this.#isOutdated = false;
    });
  }

  async #publish(
    session: ReceiveSession,
    signed: SignedStatement,
    receivedBytes: number,
  ): Promise<Acknowledgement> {
    checkEpoch(this.record, session.header);
    const point = await publishReceived({
      ...this.#tools,
      layout: this.layout,
      session,
      signed,
      receivedBytes,
      of: this.record,
      parent: this.newest?.statement ?? null,
      parentChain: (diskId) => (this.newest ? this.chain(this.newest.statement.pointId, diskId) : []),
      trees: this.#trees,
    });
    this.#points = this.#points.with({ ...point, statementDigest: statementDigest(point.statement) });
    this.#trees = point.trees;
    this.#incoming = null;
    return acknowledgementOf(this.newest!, this.awaitsSeed);
  }

  async #readStream(session: ReceiveSession, source: AsyncIterable<Uint8Array>, o: ReceiveOptions) {
    try {
      return await takeStream(session, source, o);
    } catch (error) {
      const last = await session.checkpoint().then(
        () => error,
        (failure: unknown) => (isFailure(error, 'FSYNC_FAILED') ? error : failure),
      );
      await this.#breakOff(session, last);
      throw error;
    }
  }

  /** Leaves a session after a failure. What is durable stays to be gone on with, unless it is lost. */
  async #breakOff(session: ReceiveSession, error: unknown): Promise<void> {
    const { header, durable: progress } = session;
    await session.release();
    if (isLost(error, header.epoch !== this.record.epoch)) {
      this.#incoming = null;
      await discardSession(this.#tools.files, this.layout, header.session);
    } else {
      this.#incoming = { session: header.session, pointId: header.pointId, progress };
    }
  }

  /** What the policy keeps of the present points, and why. */
  retention(policy: RetentionPolicy, proven: Proven, others?: Others): readonly RetentionVerdict[] {
    return verdictsOf(this.points, this.#branches, proven, policy, this.#tools.zones, others);
  }

  /**
   * Merges away the points that retention lets go, as far as readers allow: folding into the oldest layer waits
   * until nobody reads the replica. `others` is asked before each merge. Returns how many points went.
   */
  retire(policy: RetentionPolicy, proven: Proven, others?: () => Promise<Others>): Promise<number> {
    return this.#write(async () => {
      if (this.record.adopted !== undefined) return 0;
      let retired = await this.#endMerge();
      if (this.#points.isLosing || (this.awaitsSeed && this.#isOutdated)) return retired;
      for (;;) {
        const verdicts = this.retention(policy, proven, await others?.());
        const mayFold = this.#readers === 0 && !this.awaitsSeed;
        const intent = planMerge(verdicts, (pointId) => diskIdsOf(this.point(pointId)), mayFold);
        if (!intent) return retired;
        this.#points = this.#points.losing(intent);
        retired += await this.#merging(intent, (tools) => runMerge(tools, intent));
      }
    });
  }

  /**
   * Ends a merge that failed on its way, before anything else is planned or read: its intent is the only trace of it.
   * A fold waits for readers; the leaving points stay then. Returns how many points went.
   */
  async #endMerge(): Promise<number> {
    const unfinished = await pendingMerge(mergeTools(this.#tools, this.layout));
    if (!unfinished) this.#points = this.#points.keepingAll();
    if (!unfinished || (unfinished.kind === 'fold' && this.#readers > 0)) return 0;
    return this.#merging(unfinished, redoMerge);
  }

  /** When a merge fails on its way, chains are put together from then on as it has left them. */
  async #merging(intent: MergeIntent, merge: (tools: MergeTools) => Promise<unknown>): Promise<number> {
    const tools = mergeTools(this.#tools, this.layout);
    try {
      await merge(tools);
    } catch (error) {
      const hasBegun = (await pendingMerge(tools)) !== undefined;
      if (hasBegun) this.#points = this.#points.stuck(await findUnmerged(tools.files, tools.layout, intent));
      throw error;
    }
    this.#points = this.#points.without(intent);
    return intent.remove.length;
  }

  /** Keeps the oldest layer from being folded into while `work` has chains of this replica open. */
  async reading<T>(work: () => Promise<T>): Promise<T> {
    const release = await this.holdLayers();
    try {
      return await work();
    } finally {
      release();
    }
  }

  /**
   * As `reading`, for work without an end in sight; the returned function ends it. What is `open` already, in a process that was
   * found running, is read as an interrupted merge has left it: that waits.
   */
  holdLayers(layers: 'new' | 'open' = 'new'): Promise<() => void> {
    return this.#write(async () => {
      if (this.#points.isLosing && layers === 'new') {
        try {
          await this.#endMerge();
        } catch (error) {
          // The chains of the points that stay may be readable all the same: a recovery must be able to try.
          this.#tools.log.warn('replica.merge-unfinished', { reason: messageOf(error) });
        }
      }
      this.#readers += 1;
      let held = true;
      return () => {
        if (held) this.#readers -= 1;
        held = false;
      };
    });
  }

  /**
   * Gives the replica up: nothing is done with its files any more, and they may be removed. `decide` makes that durable; if it
   * fails, `undo` makes sure that nothing was decided. Throws REPLICA_NEEDED while anything needs the files; nothing is
   * changed then.
   */
  giveUp(decide: () => Promise<void>, undo: () => Promise<void>): Promise<void> {
    this.#checkNotNeeded();
    return this.#receiving.run(() =>
      this.#write(async () => {
        // What came while this waited counts too.
        this.#checkNotNeeded();
        this.#isGivenUp = true;
        try {
          await decide();
        } catch (error) {
          // Should this fail too, nothing more is taken in: the next open might remove it.
          await undo();
          this.#isGivenUp = false;
          throw error;
        }
        this.#incoming = null;
      }),
    );
  }

  #checkNotNeeded(): void {
    checkNotNeeded(this.record, {
      ...{ points: this.points, branches: this.#branches.length },
      ...{ readers: this.#readers, uploads: this.#uploads + this.#seeding.importing },
    });
  }

  /** Its base comes by courier and has not come: no point can be used. */
  get awaitsSeed(): boolean {
    return areAwaitingSeed(this.points);
  }

  /** Throws REPLICA_AWAITING_SEED. Everything that reads a whole chain asks first. */
  checkUsable(): void {
    if (this.awaitsSeed) throw awaitingSeed(this.record);
  }

  get seeding(): Seeding {
    return this.#seeding;
  }

  /** Takes the word of the source that the base comes by courier, with its leaves. See `Seeding`. */
  announceSeed(announcement: SeedAnnouncement, source: AsyncIterable<Uint8Array>): Promise<Acknowledgement> {
    return this.#receiving.run(async () => {
      this.#checkThere();
      await this.#catchUp();
      if (this.#incoming) await discardSession(this.#tools.files, this.layout, this.#incoming.session);
      this.#incoming = null;
      // Until it has ended only the directory knows.
      this.#isOutdated = true;
      const acknowledgement = await this.#seeding.announce(announcement, source);
      await this.#catchUp();
      return acknowledgement;
    });
  }

  /** Changes files of points, and reads the list of points anew, however that ends. */
  changingPoints<T>(work: () => Promise<T>): Promise<T> {
    return this.#write(async () => {
      await this.#endMerge();
      const wasOutdated = this.#isOutdated;
      this.#isOutdated = true;
      try {
        const result = await work();
        this.#isOutdated = wasOutdated;
        return result;
      } finally {
        this.#points = PointList.of(await loadPoints(this.#tools.files, this.layout), this.#points.unmerged);
      }
    });
  }

  /** Files are changed by one act at a time, and by none once the replica has been given up. */
  #write<T>(work: () => Promise<T>): Promise<T> {
    return this.#writing.run(async () => {
      this.#checkThere();
      await this.#kept.settle();
      return work();
    });
  }

  #checkThere(): void {
    if (this.#isGivenUp) throw removedFailure(this.record);
  }

  get branches(): readonly BranchRecord[] {
    return this.#branches;
  }

  /**
   * Tells the replica which branches there are, after one was made or removed; their points stay. `change` writes the record
   * of a new one: beside no look at them, which would take a directory without a record for what is left of one.
   */
  refreshBranches(change?: () => Promise<void>): Promise<void> {
    return this.#write(async () => {
      await change?.();
      this.#branches = await listBranches(this.#tools.files, this.layout);
    });
  }

  /**
   * Durable on return. `change` is asked beside no other change; undefined: all stays as it is. Throws REPLICA_IN_USE if its files are
   * to stay as they are from now on, and a merge that was interrupted cannot be ended before.
   */
  update(change: ReplicaUpdate): Promise<void> {
    return this.#write(async () => {
      const record = updated(this.record, change);
      if (record.adopted !== undefined) await this.#endMerge();
      if (record.adopted !== undefined && this.#points.isLosing) throw mergeUnfinished();
      await keepReplica(this.#kept, record);
    });
  }

  /** No machine lies upon a branch of it. That counts at once, also if it cannot be stored: see `withoutHome`. */
  disown(): Promise<void> {
    return this.#writing.run(() => this.#kept.correct(withoutHome(this.record)));
  }

  /** What counts although it could not be stored is durable on return: nothing is done upon it, and nobody told of it, before. */
  async settle(): Promise<void> {
    if (this.#kept.isUnsettled) await this.#write(async () => undefined);
  }

  /** Work beside no merge: what chains and digests are put together from stands still meanwhile. */
  undisturbed<T>(work: () => Promise<T>): Promise<T> {
    return this.#write(work);
  }

  /** The digest tree of a disk at a point, from the leaves files; for verification. */
  async treeAt(pointId: string, diskId: string): Promise<DigestTree> {
    return loadTree(this.#tools.files, this.layout, this.#points.upTo(this.point(pointId)), diskId);
  }
}
