import type { HoldRequest, JobView, PointView, PreviewAnswer, PreviewRequest } from '../../api/index.ts';
import { failuresOf } from '../../lib/errors.ts';
import { type Consistency, checkRetention, latestOf, POINT_ERRORS } from '../../recovery-point/index.ts';
import { holdPoint, type Replica, type ReplicaTools, verifyPoint } from '../../replica/index.ts';
import { type PeerTarget, REPLICATION_ERRORS, type TargetProgress } from '../../replication/index.ts';
import type { Audit } from '../base/audit.ts';
import type { JobHandler, Jobs } from '../base/jobs.ts';
import type { GroupPoints } from '../groups/group-points.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { cutView, replicaPointView } from '../inventory/views.ts';
import type { Machines } from '../machines/machines.ts';
import type { ReplicaKeeper } from '../replicas/replica-keeper.ts';

const pointFailure = failuresOf(POINT_ERRORS);

interface PointTools {
  readonly machines: Machines;
  readonly inventory: Inventory;
  readonly keeper: ReplicaKeeper;
  readonly audit: Audit;
  readonly replicaTools: ReplicaTools;
  readonly groupPoints: GroupPoints;
  /** Another site, as it is now; throws while it is not paired. */
  readonly target: (siteId: string) => Pick<PeerTarget, 'preview'>;
}

/** What a person does with points: at the recovery site with those published, at the protected one with copies. */
export class PointActs {
  readonly #o: PointTools;
  readonly #jobs: () => Jobs;

  constructor(o: PointTools & { jobs: () => Jobs }) {
    this.#o = o;
    this.#jobs = o.jobs;
  }

  /** The oldest first. */
  async list(reference: string): Promise<PointView[]> {
    const { home, replica } = this.#o.inventory.find(reference);
    if (replica) return this.#published(replica);
    return home!.cuts.filter(({ state }) => state !== 'intended').map((cut) => cutView(home!, cut));
  }

  async show(reference: string, point: string): Promise<PointView> {
    const points = await this.list(reference);
    const { replica } = this.#o.inventory.find(reference);
    return meant(points, (replica && this.#ofGroup(replica, point)) ?? point, reference);
  }

  /**
   * The id of a published point that a person names by id, sequence number, `latest`, `latest-application` and the like, or by a
   * cut of its group.
   */
  async publishedPoint(replica: Replica, point: string): Promise<string> {
    const points = await this.#published(replica);
    return meant(points, this.#ofGroup(replica, point) ?? point, replica.record.machineName).pointId;
  }

  /** The point that a machine has of a whole cut, or of the latest one: the others have theirs. */
  #ofGroup(replica: Replica, reference: string): string | undefined {
    const points = this.#o.groupPoints
      .all()
      .flatMap((cut) => cut.points.filter((point) => point.replica === replica));
    const found =
      reference === 'latest-group' ? points.at(-1) : points.find(({ group }) => group?.cutId === reference);
    return found?.pointId;
  }

  async #published(replica: Replica): Promise<PointView[]> {
    const reasons = await this.#o.keeper.reasons(replica);
    const wholeCuts = new Set(this.#o.groupPoints.all().map(({ group }) => group.cutId));
    const views: PointView[] = [];
    for (const point of replica.points) {
      const { pointId } = point.statement;
      const proofs = await this.#o.keeper.proofs(replica, point);
      views.push(replicaPointView(point, replica, proofs, reasons.get(pointId) ?? [], wholeCuts));
    }
    return views;
  }

  /** Makes a copy now. With `wait`, the job that ends when the copy is verified at the recovery site. */
  async create(
    actor: string,
    reference: string,
    o: { type: string; wait?: boolean },
  ): Promise<{ point: PointView } | { job: JobView }> {
    const machine = this.#o.inventory.home(reference);
    const { machineId } = machine.record;
    const act = { actor, act: 'point.create', subject: machineId, details: { type: o.type } };
    const cut = await this.#o.audit.acting(act, () => this.#o.machines.loopOf(machine).cutNow(o.type));
    if (!o.wait) return { point: cutView(machine, cut) };
    const args = { pointId: cut.cutId, ordinal: cut.ordinal };
    return { job: this.#jobs().start({ kind: 'point.create', args, actor, machineId }) };
  }

  /** Holds a point at the recovery site: it stays until it is released, or the time has passed. Throws REPLICA_TOO_DEEP. */
  hold(actor: string, reference: string, point: string, { reason, forMs }: HoldRequest): Promise<PointView> {
    const sinceMs = this.#o.replicaTools.clock.wallMs();
    const hold = { reason, sinceMs, ...(forMs === undefined ? {} : { untilMs: sinceMs + forMs }) };
    return this.#hold(actor, 'point.hold', reference, point, hold);
  }

  release(actor: string, reference: string, point: string): Promise<PointView> {
    return this.#hold(actor, 'point.release', reference, point, undefined);
  }

  async #hold(
    actor: string,
    act: string,
    reference: string,
    point: string,
    hold: Parameters<typeof holdPoint>[3],
  ): Promise<PointView> {
    const { inventory, audit, replicaTools, keeper } = this.#o;
    const replica = inventory.replica(reference);
    const pointId = await this.publishedPoint(replica, point);
    const subject = replica.record.machineId;
    return audit.acting({ actor, act, subject, details: { pointId, ...hold } }, async () => {
      await holdPoint(replicaTools.files, replica, pointId, hold, () => keeper.verdicts(replica));
      const view = await this.show(reference, pointId);
      keeper.tend(replica);
      return view;
    });
  }

  /** What a retention policy would do; the protected site asks the recovery site. Throws POLICY_*. */
  async preview(reference: string, { retention }: PreviewRequest): Promise<PreviewAnswer> {
    const { home, replica, name } = this.#o.inventory.find(reference);
    if (retention) checkRetention(retention, this.#o.replicaTools.zones);
    const protection = home?.record.protection;
    if (home && protection) {
      const target = this.#o.target(protection.targetSiteId);
      return target.preview(home.record.machineId, retention ?? protection.retention);
    }
    if (replica) return this.#o.keeper.preview(replica, retention ?? replica.record.retention);
    throw failuresOf(REPLICATION_ERRORS)('PROTECTION_NOT_PROTECTED', `${name} is not protected`);
  }

  async verify(actor: string, reference: string, point: string): Promise<JobView> {
    const replica = this.#o.inventory.replica(reference);
    const pointId = await this.publishedPoint(replica, point);
    const { machineId } = replica.record;
    return this.#jobs().start({ kind: 'point.verify', args: { pointId }, actor, machineId });
  }

  get handlers(): { readonly 'point.create': JobHandler; readonly 'point.verify': JobHandler } {
    return { 'point.create': this.#waiting, 'point.verify': this.#verifying };
  }

  /** Waits until a copy, or a younger one that holds its changes, is verified at one other side, or there and awaits its seed. */
  readonly #waiting: JobHandler = {
    repeatable: true,
    run: async ({ machineId, args, signal }) => {
      const machine = this.#o.inventory.home(machineId);
      await this.#o.machines.loopOf(machine).acknowledged(Number(args.ordinal), signal);
      const isThere = ({ record }: TargetProgress) =>
        (record.acknowledged?.ordinal ?? 0) >= Number(args.ordinal);
      const { siteId, acknowledged, seed } = machine.targets.find(isThere)!.record;
      const { pointId, sequence } = acknowledged!;
      return { pointId, sequence, siteId, ...(seed ? { awaitsSeed: true } : {}) };
    },
  };

  /** Reads a point's whole chain and compares it with what was signed. */
  readonly #verifying: JobHandler = {
    repeatable: true,
    run: async ({ machineId, args, signal, progress }) => {
      const replica = this.#o.inventory.replica(machineId);
      return verifyPoint(this.#o.replicaTools, replica, String(args.pointId), {
        signal,
        onProgress: ({ bytesDone, bytesTotal }) => progress({ bytesDone, bytesTotal }),
      });
    },
  };
}

/** References by consistency: the newest point that counts as one of it. */
const LATEST: Readonly<Record<string, Consistency>> = {
  latest: 'crash',
  'latest-crash': 'crash',
  'latest-application': 'application',
};

/** `points` in ascending order. A point whose claim was refuted counts as crash-consistent. */
function meant(points: readonly PointView[], reference: string, machine: string): PointView {
  const atLeast = LATEST[reference];
  const found =
    atLeast === undefined
      ? points.find(({ pointId, sequence }) => pointId === reference || String(sequence) === reference)
      : latestOf(
          points.map((point) => ({ point, consistency: point.demoted ? 'crash' : point.consistency })),
          atLeast,
        )?.point;
  if (found) return found;
  throw pointFailure('POINT_NOT_FOUND', `${machine} has no point ${reference}`, {
    context: { machine, point: reference },
  });
}
