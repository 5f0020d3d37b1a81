import type {
  ChangeGroupRequest,
  CreateGroupRequest,
  GroupCutView,
  GroupPointView,
  GroupView,
} from '../../api/index.ts';
import { demotedPoints } from '../../failover/index.ts';
import type { FileSystem } from '../../lib/files.ts';
import { type Consistency, satisfies } from '../../recovery-point/index.ts';
import type { Audit } from '../base/audit.ts';
import { controlFailure } from '../errors.ts';
import type { GroupLoop } from '../groups/group-loop.ts';
import type { GroupPoint, GroupPoints } from '../groups/group-points.ts';
import type { Groups } from '../groups/groups.ts';
import type { Inventory } from '../inventory/inventory.ts';
import type { PeerLinks } from '../peers/peer-links.ts';
import type { KeepReasons, ReplicaKeeper } from '../replicas/replica-keeper.ts';

interface GroupTools {
  readonly groups: Groups;
  readonly inventory: Inventory;
  readonly links: Pick<PeerLinks, 'view'>;
  readonly audit: Audit;
  readonly keeper: Pick<ReplicaKeeper, 'reasons'>;
  readonly points: GroupPoints;
  readonly files: FileSystem;
}

/** What a person does with groups: at the protected site with those set up there, at the recovery site with their points. */
export class GroupActs {
  readonly #o: GroupTools;

  constructor(o: GroupTools) {
    this.#o = o;
  }

  async list(): Promise<GroupView[]> {
    const here = this.#o.groups.list().map((loop) => this.#view(loop));
    const others = new Set(this.#o.points.all().map(({ group }) => group.groupId));
    for (const { groupId } of here) others.delete(groupId);
    for (const groupId of others) here.push(await this.show(groupId));
    return here;
  }

  /** Throws GROUP_UNKNOWN. */
  async show(reference: string): Promise<GroupView> {
    const loop = this.#o.groups.find(reference);
    if (loop) return this.#view(loop);
    const points = await this.points(reference);
    const newest = points.at(-1)!;
    const members = newest.members.map(({ machineId, name }) => ({ machineId, name }));
    const { groupId, groupName: name } = newest;
    return { ...{ groupId, name, role: 'replica', members }, points: points.length, newest };
  }

  #view(loop: GroupLoop): GroupView {
    const { groupId, name, members, targetSiteId, every, limitMs } = loop.record;
    const targetName = this.#o.links.view(targetSiteId)?.name;
    const { nextDue, lastCut } = loop;
    return {
      ...{ groupId, name, role: 'protected', targetSiteId, every, limitMs },
      ...(targetName === undefined ? {} : { targetName }),
      members: members.map((machineId) => ({ machineId, name: this.#nameOf(machineId) })),
      ...(nextDue ? { nextDue } : {}),
      ...(lastCut ? { lastCut } : {}),
    };
  }

  /** A machine may have gone whose group is still there. */
  #nameOf(machineId: string): string {
    return this.#o.inventory.named(machineId) ?? machineId;
  }

  create(actor: string, request: CreateGroupRequest): Promise<GroupView> {
    return this.#o.audit.acting({ actor, act: 'group.create', details: request }, async () => {
      const members = request.members.map((member) => this.#o.inventory.home(member));
      return this.#view(await this.#o.groups.create(request, members));
    });
  }

  change(actor: string, reference: string, request: ChangeGroupRequest): Promise<GroupView> {
    const loop = this.#here(reference);
    const { groupId: subject } = loop.record;
    return this.#o.audit.acting({ actor, act: 'group.change', subject, details: request }, async () => {
      const members = (request.members ?? loop.record.members).map((member) =>
        this.#o.inventory.home(member),
      );
      await this.#o.groups.change(loop, request, members);
      return this.#view(loop);
    });
  }

  remove(actor: string, reference: string): Promise<void> {
    const loop = this.#here(reference);
    const { groupId: subject } = loop.record;
    return this.#o.audit.acting({ actor, act: 'group.remove', subject }, () => this.#o.groups.remove(loop));
  }

  cut(actor: string, reference: string, copyType: string): Promise<GroupCutView> {
    const loop = this.#here(reference);
    const { groupId: subject } = loop.record;
    return this.#o.audit.acting({ actor, act: 'group.cut', subject, details: { copyType } }, () =>
      loop.cutNow(copyType),
    );
  }

  #here(reference: string): GroupLoop {
    const loop = this.#o.groups.find(reference);
    if (loop) return loop;
    throw controlFailure('GROUP_UNKNOWN', `no group ${reference} is set up at this site`);
  }

  /** The whole cuts of a group, the oldest first. Throws GROUP_UNKNOWN. */
  async points(reference: string): Promise<GroupPointView[]> {
    const found = this.#o.points
      .all()
      .filter(({ group }) => group.groupId === reference || group.groupName === reference);
    if (found.length === 0 && !this.#o.groups.find(reference)) {
      throw controlFailure('GROUP_UNKNOWN', `this site holds no points of a group ${reference}`);
    }
    const reasons = new Map<string, KeepReasons>();
    const demoted = new Set<string>();
    for (const replica of new Set(found.flatMap(({ points }) => points.map((point) => point.replica)))) {
      for (const [pointId, why] of await this.#o.keeper.reasons(replica)) reasons.set(pointId, why);
      // One that cannot be read refutes nothing; its machine's own alert names it.
      const refuted = await demotedPoints(this.#o.files, replica, () => undefined);
      for (const pointId of refuted) demoted.add(pointId);
    }
    return found.map((point) => viewOf(point, reasons, demoted));
  }
}

/** A cut is what the weakest of its points counts as: one whose claim was refuted is crash-consistent. */
function viewOf(
  { group, points }: GroupPoint,
  reasons: ReadonlyMap<string, KeepReasons>,
  demoted: ReadonlySet<string>,
): GroupPointView {
  const found = points.map(({ point: { statement } }) => ({
    copyType: statement.copyType,
    consistency: demoted.has(statement.pointId) ? ('crash' satisfies Consistency) : statement.consistency,
  }));
  const weakest = found.reduce((least, one) => (satisfies(one.consistency, least.consistency) ? least : one));
  return {
    ...{ cutId: group.cutId, groupId: group.groupId, groupName: group.groupName, pauseMs: group.pauseMs },
    ...{ copyType: weakest.copyType, consistency: weakest.consistency },
    cutAtMs: Math.round(points[0]!.point.manifest.cutAtHereMs),
    members: points.map(({ point: { statement, manifest } }) => ({
      ...{ machineId: statement.machineId, name: statement.machineName, pointId: statement.pointId },
      ...{ sequence: statement.sequence, receivedBytes: manifest.receivedBytes },
      keptFor: [...(reasons.get(statement.pointId) ?? [])],
    })),
  };
}
