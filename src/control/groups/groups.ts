import type { ChangeGroupRequest, CreateGroupRequest } from '../../api/index.ts';
import type { Hypervisor } from '../../hypervisor/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { Mutex } from '../../lib/mutex.ts';
import { isId, newId, type Random } from '../../lib/random.ts';
import { loadRecord, storeRecord } from '../../lib/records.ts';
import {
  copyTypeOf,
  POINTS_MAX,
  placesOf,
  type RetentionPolicy,
  type Zones,
} from '../../recovery-point/index.ts';
import {
  cutGroup,
  type GroupCutOutcome,
  type GroupMember,
  type ProtectedMachine,
  targetOf,
} from '../../replication/index.ts';
import { type AlertSink, failureOf } from '../base/alerts.ts';
import { controlFailure } from '../errors.ts';
import type { Machines } from '../machines/machines.ts';
import { GroupLoop } from './group-loop.ts';
import { GROUP_RECORD, type GroupRecord, groupPath, groupsDirectory } from './group-record.ts';

export interface GroupsTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly zones: Zones;
  readonly alerts: AlertSink;
  readonly hypervisor: Pick<Hypervisor, 'whilePaused'>;
  readonly dataDirectory: string;
  readonly machines: Pick<Machines, 'get' | 'list' | 'loopOf'>;
  /** Another site, as it is now; throws while it is not paired. */
  readonly target: (siteId: string) => { knowsGroups(): Promise<boolean> };
}

const LIMIT_MS = 1_000;

/** The groups of this site, and the loops that cut them. */
export class Groups {
  readonly #tools: GroupsTools;
  readonly #open = new Map<string, GroupLoop>();
  readonly #changing = new Mutex();

  private constructor(tools: GroupsTools) {
    this.#tools = tools;
  }

  /** Opens every group there is and begins to cut those with a schedule. */
  static async open(tools: GroupsTools): Promise<Groups> {
    const groups = new Groups(tools);
    const directory = groupsDirectory(tools.dataDirectory);
    await tools.files.makeDirectory(directory);
    for (const name of (await tools.files.list(directory)) ?? []) {
      const groupId = name.replace(/\.json$/, '');
      if (name.endsWith('.json') && isId(groupId)) await groups.#openOne(groupId);
    }
    return groups;
  }

  async #openOne(groupId: string): Promise<void> {
    const { files, dataDirectory, alerts, log } = this.#tools;
    const key = `group-record:${groupId}`;
    try {
      const record = await loadRecord(files, groupPath(dataDirectory, groupId), GROUP_RECORD);
      if (record) this.#follow(record);
      alerts.clear(key);
    } catch (error) {
      log.error('group.broken', { groupId, reason: messageOf(error) });
      alerts.raise(key, 'critical', failureOf(error));
    }
  }

  #follow(record: GroupRecord): void {
    const loop = new GroupLoop(record, {
      ...this.#tools,
      cut: (now, type) => this.#cut(now, type),
    });
    this.#open.set(record.groupId, loop);
    loop.start();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].map((loop) => loop.stop()));
  }

  list(): readonly GroupLoop[] {
    return [...this.#open.values()].sort((a, b) => (a.record.name < b.record.name ? -1 : 1));
  }

  /** By name or id. */
  find(reference: string): GroupLoop | undefined {
    return this.list().find(({ record }) => record.groupId === reference || record.name === reference);
  }

  /** The group that a machine is in. */
  of(machineId: string): GroupRecord | undefined {
    return this.list().find(({ record }) => record.members.includes(machineId))?.record;
  }

  /** `members` have been found by what a person calls them. Throws GROUP_*, COPY_TYPE_UNKNOWN. */
  create(request: CreateGroupRequest, members: readonly ProtectedMachine[]): Promise<GroupLoop> {
    return this.#changing.run(async () => {
      const { name, every = {}, limitMs = LIMIT_MS } = request;
      const taken = this.find(name);
      if (taken) throw controlFailure('GROUP_EXISTS', `there is a group ${name} already`);
      const { clock, random } = this.#tools;
      const record: GroupRecord = {
        ...{ groupId: newId(clock, random), name, createdAtMs: clock.wallMs(), every: { ...every }, limitMs },
        targetSiteId: members[0]?.record.protection?.targetSiteId ?? '',
        members: members.map((machine) => machine.record.machineId),
      };
      await this.#store(record, members);
      this.#follow(record);
      return this.#open.get(record.groupId)!;
    });
  }

  change(
    loop: GroupLoop,
    { every, limitMs }: ChangeGroupRequest,
    members: readonly ProtectedMachine[],
  ): Promise<void> {
    return this.#changing.run(async () => {
      const record: GroupRecord = {
        ...loop.record,
        ...(every ? { every: { ...every } } : {}),
        ...(limitMs === undefined ? {} : { limitMs }),
        members: members.map((machine) => machine.record.machineId),
      };
      await this.#store(record, members);
      loop.change(record);
    });
  }

  async #store(record: GroupRecord, members: readonly ProtectedMachine[]): Promise<void> {
    const { files, dataDirectory, target } = this.#tools;
    this.#check(record, members);
    if (!(await target(record.targetSiteId).knowsGroups())) {
      throw controlFailure('GROUP_TARGET_OUTDATED', 'the recovery site does not know groups');
    }
    await storeRecord(files, groupPath(dataDirectory, record.groupId), GROUP_RECORD, record);
    await files.syncDirectory(dataDirectory);
  }

  #check({ groupId, name, targetSiteId, every }: GroupRecord, members: readonly ProtectedMachine[]): void {
    const unsuitable = (said: string) =>
      controlFailure('GROUP_MEMBER_UNSUITABLE', said, { context: { name } });
    const ids = members.map(({ record }) => record.machineId);
    for (const { record } of members) {
      const { protection, machineId } = record;
      if (!protection) throw unsuitable(`${record.name} is not protected`);
      if (!targetOf(protection, targetSiteId)) throw unsuitable(`${record.name} has another target`);
      if (ids.indexOf(machineId) !== ids.lastIndexOf(machineId))
        throw unsuitable(`${record.name} is named twice`);
      const other = this.of(machineId);
      if (other && other.groupId !== groupId)
        throw unsuitable(`${record.name} is in the group ${other.name}`);
      for (const copyType of Object.keys(every)) copyTypeOf(copyType, protection.copyTypes ?? []);
    }
    checkPlaces(
      name,
      members.map(({ record }) => targetOf(record.protection!, targetSiteId)!.retention),
    );
  }

  /** Throws GROUP_TOO_DEEP if a member's group could keep too many points with this retention of the member at a target. */
  checkRetention(machineId: string, siteId: string, retention: RetentionPolicy): void {
    const group = this.of(machineId);
    if (group?.targetSiteId !== siteId) return;
    const others = group.members.flatMap((id) => {
      const protection = this.#tools.machines.get(id)?.machine.record.protection;
      return id === machineId || !protection ? [] : (targetOf(protection, siteId)?.retention ?? []);
    });
    checkPlaces(group.name, [retention, ...others]);
  }

  /** Points that there are stay. */
  remove(loop: GroupLoop): Promise<void> {
    return this.#changing.run(async () => {
      const { files, dataDirectory, alerts } = this.#tools;
      const { groupId } = loop.record;
      await loop.stop();
      await files.remove(groupPath(dataDirectory, groupId));
      await files.syncDirectory(groupsDirectory(dataDirectory));
      this.#open.delete(groupId);
      alerts.clear(`group:${groupId}`);
    });
  }

  #cut({ groupId, name, members, limitMs }: GroupRecord, copyType: string): Promise<GroupCutOutcome> {
    return cutGroup(this.#tools, {
      ...{ group: { groupId, name }, limitMs },
      members: members.map((machineId) => this.#member(machineId, copyType)),
    });
  }

  #member(machineId: string, copyType: string): GroupMember {
    const { machines } = this.#tools;
    const machine = machines.get(machineId)?.machine;
    return {
      machineId,
      name: machine?.record.name ?? machineId,
      cut: async (together) => {
        if (machine) return machines.loopOf(machine).cutTogether(copyType, together);
        throw controlFailure('MACHINE_UNKNOWN', `this site has no machine ${machineId}`);
      },
    };
  }
}

/** The members keep points for each other: in the worst case each all those that the others keep. */
function checkPlaces(name: string, retentions: readonly RetentionPolicy[]): void {
  const places = retentions.reduce((sum, retention) => sum + placesOf(retention), 0);
  if (places <= POINTS_MAX) return;
  const said = `the members of ${name} could keep ${places} points for each other; at most ${POINTS_MAX} are kept of a machine`;
  throw controlFailure('GROUP_TOO_DEEP', said, { context: { places, maximum: POINTS_MAX } });
}
