import type { GroupPointView, PlanDocument } from '../../api/index.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import { type Consistency, satisfies } from '../../recovery-point/index.ts';
import { controlFailure } from '../errors.ts';

/** Where machines of a plan come up from together. */
export interface PointOfCut {
  readonly pointId: string;
  readonly cutId: string;
}

interface KnownOfCuts {
  /** The whole cuts of a group, the oldest first. Throws GROUP_UNKNOWN. */
  readonly points: (group: string) => Promise<readonly GroupPointView[]>;
  readonly idOf: (machine: string) => string | undefined;
  /** The point that a machine of the plan is up from already, where it is. */
  readonly upFrom: (machine: string) => Promise<string | undefined>;
  /** Whether the last isolated boot of a point has failed, or has refuted what it claims. */
  readonly hasFailed: (machineId: string, pointId: string) => Promise<boolean>;
  readonly atLeast: (machine: string) => Consistency;
}

/**
 * The points of those machines of a plan that are to come up from one cut, by machine: of each group that the plan names the newest whole cut
 * that is consistent enough and of which no boot has failed and no claim was refuted, else the newest that is consistent enough; but the cut that some of them are up from, where
 * some are. Throws GROUP_UNKNOWN, PLAN_CUT_MISSING, PLAN_CUT_LOST.
 */
export async function pointsOfCuts(
  { oneCut = [], machines }: PlanDocument,
  known: KnownOfCuts,
): Promise<ReadonlyMap<string, PointOfCut>> {
  const chosen = new Map<string, PointOfCut>();
  for (const group of oneCut) {
    const cuts = await known.points(group);
    const members = Object.keys(machines).filter((machine) =>
      cuts.some((cut) => cut.members.some(({ machineId }) => machineId === known.idOf(machine))),
    );
    const cut =
      (await cutAtWork(group, cuts, members, known)) ?? (await bestCut(group, cuts, members, known));
    for (const machine of members) {
      const point = pointIn(cut, known.idOf(machine));
      if (point !== undefined) chosen.set(machine, { pointId: point, cutId: cut.cutId });
    }
  }
  return chosen;
}

function pointIn({ members }: GroupPointView, machineId: string | undefined): string | undefined {
  return members.find((member) => member.machineId === machineId)?.pointId;
}

/** The cut that machines of a group are up from: the others have to come from there, too. */
async function cutAtWork(
  group: string,
  cuts: readonly GroupPointView[],
  members: readonly string[],
  { idOf, upFrom }: KnownOfCuts,
): Promise<GroupPointView | undefined> {
  let at: GroupPointView | undefined;
  for (const machine of members) {
    const pointId = await readUpFrom(group, machine, upFrom);
    if (pointId === undefined) continue;
    const own = cuts.find((cut) => pointIn(cut, idOf(machine)) === pointId);
    if (own && (!at || at === own)) at = own;
    else {
      const from = own ? `cut ${own.cutId}` : `point ${pointId}, which is in no whole cut`;
      const said = `${machine} is up from ${from} of ${group}${at ? `, and others are from cut ${at.cutId}` : ''}`;
      throw controlFailure('PLAN_CUT_LOST', said, { context: { group, machine, pointId } });
    }
  }
  return at;
}

/** Whether the others may come up from the newest cut is not known without it; a person can leave the group out. */
async function readUpFrom(
  group: string,
  machine: string,
  upFrom: KnownOfCuts['upFrom'],
): Promise<string | undefined> {
  try {
    return await upFrom(machine);
  } catch (error) {
    if (!isFailure(error)) throw error;
    const said = `whether ${machine} of ${group} is up, and from which cut, cannot be read: ${messageOf(error)}`;
    throw controlFailure('PLAN_CUT_LOST', said, { context: { group, machine }, cause: error });
  }
}

async function bestCut(
  group: string,
  cuts: readonly GroupPointView[],
  members: readonly string[],
  { idOf, atLeast, hasFailed }: KnownOfCuts,
): Promise<GroupPointView> {
  const enough = cuts
    .filter(({ consistency }) =>
      members.every((machine) => satisfies(consistency as Consistency, atLeast(machine))),
    )
    .toReversed();
  for (const cut of enough) {
    const tried = await Promise.all(
      members.map(async (machine) => {
        const pointId = pointIn(cut, idOf(machine));
        return pointId !== undefined && (await hasFailed(idOf(machine)!, pointId));
      }),
    );
    if (!tried.includes(true)) return cut;
  }
  const [newest] = enough;
  if (newest) return newest;
  const said = `this site holds no whole cut of ${group} that is consistent enough for the machines of the plan`;
  throw controlFailure('PLAN_CUT_MISSING', said, { context: { group } });
}
