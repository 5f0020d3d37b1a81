import type {
  FailOverGroupRequest,
  GroupJobs,
  GroupPointView,
  JobView,
  TestGroupRequest,
} from '../../api/index.ts';
import { isFailure } from '../../lib/errors.ts';
import { controlFailure } from '../errors.ts';
import type { Inventory } from '../inventory/inventory.ts';
import { recordOf } from '../inventory/views.ts';
import type { FailoverActs } from './failover-acts.ts';
import type { GroupActs } from './group-acts.ts';

type Member = GroupPointView['members'][number];

/** Boots a whole group at the recovery site: a job for each machine, all from points of one cut. */
export class GroupFailovers {
  readonly #groups: Pick<GroupActs, 'points'>;
  readonly #failovers: Pick<FailoverActs, 'test' | 'start' | 'checkTogether' | 'hasWitness'>;
  readonly #inventory: Pick<Inventory, 'replica'>;

  constructor(o: {
    groups: Pick<GroupActs, 'points'>;
    failovers: Pick<FailoverActs, 'test' | 'start' | 'checkTogether' | 'hasWitness'>;
    inventory: Pick<Inventory, 'replica'>;
  }) {
    this.#groups = o.groups;
    this.#failovers = o.failovers;
    this.#inventory = o.inventory;
  }

  /** A member that cannot be begun hinders no other, and is told. Throws GROUP_UNKNOWN, GROUP_CUT_UNKNOWN, and what hinders all members. */
  async test(actor: string, group: string, { cut, ...request }: TestGroupRequest): Promise<GroupJobs> {
    const point = await this.#cut(group, cut);
    return ofEach(point, ({ machineId }) =>
      this.#failovers.test(actor, machineId, { ...request, ...pointIn(point, cut) }),
    );
  }

  /**
   * A member that cannot be begun hinders no other, and is told. Throws GROUP_UNKNOWN, GROUP_CUT_UNKNOWN, GROUP_NOT_MEMBER, LEASE_UNKNOWN,
   * FAILOVER_NIC_UNKNOWN, FAILOVER_ADDRESS_TWICE, FAILOVER_ADDRESS_TAKEN, and what hinders all members; nothing has been begun then.
   */
  async start(actor: string, group: string, request: FailOverGroupRequest): Promise<GroupJobs> {
    const { cut, networks = {}, ...others } = request;
    const byMachine = new Map(
      Object.entries(networks).map(([machine, nics]) => [
        this.#inventory.replica(machine).record.machineId,
        nics,
      ]),
    );
    const point = await this.#cut(group, cut);
    // One slip of the pen must not leave half of the machines here and half of them nowhere.
    for (const machineId of byMachine.keys()) {
      if (point.members.some((member) => member.machineId === machineId)) continue;
      throw controlFailure('GROUP_NOT_MEMBER', `machine ${machineId} is not in that cut of ${group}`);
    }
    await this.#failovers.checkTogether(
      point.members.map(({ machineId, pointId }) => ({
        ...{ replica: this.#inventory.replica(machineId), pointId },
        networks: byMachine.get(machineId) ?? {},
      })),
    );
    const lacking =
      request.askWitness && point.members.find(({ machineId }) => !this.#failovers.hasWitness(machineId));
    if (lacking) {
      const said = `${lacking.name} has no witness that this site could ask`;
      throw controlFailure('LEASE_UNKNOWN', said, { context: { machineId: lacking.machineId } });
    }
    return ofEach(point, ({ machineId }) => {
      const nics = byMachine.get(machineId);
      return this.#failovers.start(actor, machineId, {
        ...{ ...others, ...pointIn(point, cut) },
        ...(nics ? { networks: nics } : {}),
      });
    });
  }

  async #cut(group: string, cut: string | undefined): Promise<GroupPointView> {
    const points = await this.#groups.points(group);
    const found = cut === undefined ? points.at(-1) : points.find(({ cutId }) => cutId === cut);
    if (found) return found;
    const what = cut === undefined ? 'no whole cut' : `no whole cut ${cut}`;
    throw controlFailure('GROUP_CUT_UNKNOWN', `this site holds ${what} of ${group}`);
  }
}

/** What a member comes up from; `cut` is what a person has named. */
function pointIn({ cutId }: GroupPointView, cut: string | undefined) {
  return cut === undefined ? { point: cutId, why: 'of the newest whole cut of its group' } : { point: cutId };
}

/** Those that were begun are at work whatever becomes of the next: who asked for them must hear of their jobs. */
async function ofEach(
  { cutId, members }: GroupPointView,
  begin: (member: Member) => Promise<JobView>,
): Promise<GroupJobs> {
  const jobs: GroupJobs['jobs'] = [];
  const failures: NonNullable<GroupJobs['failures']> = [];
  let first: unknown;
  for (const member of members) {
    const { machineId, name } = member;
    try {
      jobs.push({ machineId, name, job: await begin(member) });
    } catch (error) {
      if (!isFailure(error)) throw error;
      first ??= error;
      failures.push({ machineId, name, failure: recordOf(error) });
    }
  }
  if (jobs.length === 0 && first) throw first;
  return { cutId, jobs, ...(failures.length > 0 ? { failures } : {}) };
}
