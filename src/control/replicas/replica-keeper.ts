import { join } from 'node:path';
import type { PreviewAnswer } from '../../api/index.ts';
import {
  type ApplicationProof,
  type BootProof,
  demotedPoints,
  loadApplicationProof,
  loadBootProof,
  provenPoints,
  readOrTell,
} from '../../failover/index.ts';
import type { Hypervisor } from '../../hypervisor/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { type Failure, isFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { loadRecord } from '../../lib/records.ts';
import {
  groupReasons,
  type KeepReason,
  type RetentionPolicy,
  type RetentionVerdict,
} from '../../recovery-point/index.ts';
import {
  awaitingSeed,
  CONTENT_PROOF,
  type ContentProof,
  deepChain,
  type Others,
  type Replica,
  type ReplicaPoint,
  type Replicas,
} from '../../replica/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import type { EventHub } from '../base/event-hub.ts';
import type { PointIndex } from './point-index.ts';
import { StartChecks } from './start-checks.ts';

export type KeepReasons = readonly KeepReason[];

/** What there is of evidence beside a point. */
export interface PointProofs {
  readonly content: ContentProof | undefined;
  readonly boot: BootProof | undefined;
  readonly application: ApplicationProof | undefined;
}

/**
 * Looks after the replicas of the site: after each publication, and when a branch or a proof has come or gone, it brings
 * the index up to date and lets points go that retention no longer keeps.
 */
export class ReplicaKeeper {
  readonly #files: FileSystem;
  readonly #replicas: Replicas;
  readonly #index: PointIndex;
  readonly #alerts: AlertSink;
  readonly #events: EventHub;
  readonly #log: Log;
  readonly #forwarding: (replica: Replica) => Others;
  readonly #floor: (replica: Replica) => Others;
  /** Whether the machines of the newest points would start here. */
  readonly starts: StartChecks;
  readonly #underWay = new Set<Promise<void>>();
  #isClosed = false;

  constructor(o: {
    files: FileSystem;
    replicas: Replicas;
    index: PointIndex;
    alerts: AlertSink;
    events: EventHub;
    log: Log;
    clock: Clock;
    hypervisor: Pick<Hypervisor, 'offer'>;
    /** Why points stay that are on their way to other sites. */
    forwarding: (replica: Replica) => Others;
    /** What this site keeps whatever others say. */
    floor: (replica: Replica) => Others;
  }) {
    this.#files = o.files;
    this.#replicas = o.replicas;
    this.#index = o.index;
    this.#alerts = o.alerts;
    this.#events = o.events;
    this.#log = o.log;
    this.#forwarding = o.forwarding;
    this.#floor = o.floor;
    this.starts = new StartChecks(o);
  }

  /** Applies retention to all replicas in the background. */
  tendAll(): void {
    for (const replica of this.#replicas.list()) this.tend(replica);
  }

  /** Applies retention in the background; what fails is reported and done again after the next publication. */
  tend(replica: Replica): void {
    if (this.#isClosed) return;
    const done = this.#tend(replica).finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
  }

  /** Returns when nothing is under way any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#underWay);
  }

  /** Never rejects. */
  async #tend(replica: Replica): Promise<void> {
    const { machineId, machineName, retention } = replica.record;
    const key = `retention:${machineId}`;
    try {
      if (!this.#isHeld(replica)) return;
      this.#index.refresh(replica);
      this.#tellOfSeed(replica);
      this.#lookAtStart(replica);
      await this.#tellOfClaims(replica);
      const proven = await provenPoints(this.#files, replica);
      const isProven = (pointId: string) => proven.has(pointId);
      const retired = await replica.retire(retention, isProven, () => this.#others(replica, retention));
      this.#alerts.clear(key);
      const others = await this.#others(replica, retention);
      this.#tellOfDepth(replica, replica.retention(retention, isProven, others));
      if (retired === 0 || !this.#isHeld(replica)) return;
      this.#index.refresh(replica);
      this.#log.info('retention.applied', { machine: machineName, retired, points: replica.points.length });
      this.#events.emit({ event: 'point', change: 'retired', machineId });
    } catch (error) {
      // Removed meanwhile: nothing of it is to be kept.
      if (!this.#isHeld(replica)) return;
      const failure = failureOf(error);
      this.#log.error('retention.failed', { machine: machineName, code: failure.code, error });
      this.#alerts.raise(key, 'warning', failure, machineId);
    }
  }

  /** Beside everything else: nothing waits for what this host says of itself. */
  #lookAtStart(replica: Replica): void {
    const done = this.starts.look(replica).finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
  }

  /** A machine that cannot be recovered must not look like the others. */
  #tellOfSeed(replica: Replica): void {
    const { machineId } = replica.record;
    const key = `seed:${machineId}`;
    if (replica.awaitsSeed) this.#alerts.raise(key, 'warning', awaitingSeed(replica.record), machineId);
    else this.#alerts.clear(key);
  }

  /** Retention does not ask whether claims were refuted; a failover does, and takes one that cannot be read for none. */
  async #tellOfClaims(replica: Replica): Promise<void> {
    const { machineId } = replica.record;
    const key = `proof:${machineId}`;
    const unread: Failure[] = [];
    await demotedPoints(this.#files, replica, (_, failure) => unread.push(failure));
    const [first] = unread;
    if (first && this.#isHeld(replica)) this.#alerts.raise(key, 'warning', first, machineId);
    else this.#alerts.clear(key);
  }

  /** What makes a chain deep is not undone by anything but a person. */
  #tellOfDepth(replica: Replica, verdicts: readonly RetentionVerdict[]): void {
    const { machineId } = replica.record;
    const key = `depth:${machineId}`;
    const failure = deepChain(replica, verdicts);
    if (failure && this.#isHeld(replica)) this.#alerts.raise(key, 'warning', failure, machineId);
    else this.#alerts.clear(key);
  }

  #isHeld(replica: Replica): boolean {
    return this.#replicas.get(replica.record.machineId) === replica;
  }

  /** A replica has been removed. */
  forget(machineId: string): void {
    this.#index.forget(machineId);
    this.starts.forget(machineId);
    for (const about of ['retention', 'proof', 'seed', 'depth']) this.#alerts.clear(`${about}:${machineId}`);
  }

  /** What retention says of each point now, or would say by another policy; as long as a proof cannot be read everything stays. */
  async verdicts(
    replica: Replica,
    policy: RetentionPolicy = replica.record.retention,
  ): Promise<readonly RetentionVerdict[]> {
    return this.#verdicts(replica, policy, () => this.#others(replica, policy));
  }

  async #verdicts(
    replica: Replica,
    policy: RetentionPolicy,
    others: () => Others | Promise<Others>,
  ): Promise<readonly RetentionVerdict[]> {
    let proven: ReadonlySet<string>;
    try {
      proven = await provenPoints(this.#files, replica);
    } catch (error) {
      if (!isFailure(error)) throw error;
      // Its own alert says so, by the retention that stands still.
      return replica.points.map(({ statement: { pointId, sequence } }) => ({
        ...{ pointId, sequence, reasons: ['proof-unread'] },
      }));
    }
    return replica.retention(policy, (pointId) => proven.has(pointId), await others());
  }

  async #others(replica: Replica, policy: RetentionPolicy): Promise<Others> {
    const all = new Map(await this.#groupReasons(replica, policy));
    for (const [pointId, reasons] of [...this.#forwarding(replica), ...this.#floor(replica)]) {
      all.set(pointId, [...(all.get(pointId) ?? []), ...reasons]);
    }
    return all;
  }

  /** Why points stay that belong to cuts of groups, if `policy` is that of the replica. */
  async #groupReasons(replica: Replica, policy: RetentionPolicy): Promise<Others> {
    const { machineId } = replica.record;
    const groups = replica.points.flatMap(({ statement }) => statement.group ?? []);
    const ids = new Set(groups.flatMap(({ members }) => members.map((member) => member.machineId)));
    if (ids.size === 0) return new Map();
    const members = this.#replicas.list().filter(({ record }) => ids.has(record.machineId));
    return groupReasons(
      await Promise.all(
        members.map(async (member) => {
          const own = member.record.machineId === machineId ? policy : member.record.retention;
          const verdicts = await this.#verdicts(member, own, () => this.#floor(member));
          const reasons = new Map(verdicts.map((verdict) => [verdict.pointId, verdict.reasons]));
          return {
            machineId: member.record.machineId,
            points: member.points.map(({ statement }) => ({
              ...statement,
              reasons: reasons.get(statement.pointId) ?? [],
            })),
          };
        }),
      ),
    );
  }

  /** Why each point stays. */
  async reasons(replica: Replica): Promise<ReadonlyMap<string, KeepReasons>> {
    const verdicts = await this.verdicts(replica);
    return new Map(verdicts.map(({ pointId, reasons }) => [pointId, reasons]));
  }

  /** What a retention policy would do with the points that there are. */
  async preview(replica: Replica, retention: RetentionPolicy): Promise<PreviewAnswer> {
    const verdicts = await this.verdicts(replica, retention);
    const reasons = new Map(verdicts.map((verdict) => [verdict.pointId, verdict.reasons]));
    return {
      retention,
      points: replica.points.map(({ statement: { pointId, sequence, copyType }, manifest }) => ({
        ...{ pointId, sequence, copyType, cutAtMs: Math.round(manifest.cutAtHereMs) },
        keptFor: [...(reasons.get(pointId) ?? [])],
      })),
    };
  }

  /** What can be read of them: points are listed, and chosen, without what cannot. */
  async proofs(replica: Replica, point: ReplicaPoint): Promise<PointProofs> {
    const files = this.#files;
    const { pointId } = point.statement;
    const path = join(replica.layout.proofs(pointId), 'content.json');
    const read = <T>(load: () => Promise<T>) =>
      readOrTell(pointId, (_, { message }) => this.#log.warn('proof.unread', { pointId, message }), load);
    return {
      content: await read(() => loadRecord(files, path, CONTENT_PROOF)),
      boot: (await read(() => loadBootProof(files, replica, pointId)))?.proof,
      application: (await read(() => loadApplicationProof(files, replica, point)))?.proof,
    };
  }

  /** Drops the index and fills it from the directories. */
  rebuildIndex(): void {
    this.#index.rebuild(this.#replicas.list());
  }

  get indexedPoints(): number {
    return this.#index.count();
  }
}
