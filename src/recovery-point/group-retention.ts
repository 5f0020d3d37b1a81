import { type CutOfPoints, cutsOf, type GroupedPoint, isLater } from './group-points.ts';
import type { KeepReason } from './retention.ts';

/** A point with what retention says of it for its own machine's sake. */
export interface GroupedCandidate extends GroupedPoint {
  /** On the clock of the protected site. */
  readonly cutAtMs: number;
  /** Empty: for itself it may go. */
  readonly reasons: readonly KeepReason[];
}

/** One machine and its points, in ascending order. */
export interface GroupedMachine {
  readonly machineId: string;
  readonly points: readonly GroupedCandidate[];
}

/** Cuts whose last points are still to come are kept for a machine, so many of the oldest: as many as a source keeps unsent. */
const AWAITED_MAX = 8;

/**
 * Why points stay for the sake of others, by their id. Pure. A cut of a group that is whole stays whole: as long as one
 * member's point has a reason to stay, those of all others do, and the newest whole cut of each group stays anyhow. A cut of
 * which points are still to come is kept until they have come or cannot come any more.
 */
export function groupReasons(
  machines: readonly GroupedMachine[],
): ReadonlyMap<string, readonly KeepReason[]> {
  const reasons = new Map<string, KeepReason[]>();
  const keep = (points: readonly GroupedCandidate[], reason: KeepReason) => {
    for (const { pointId } of points) reasons.set(pointId, [...(reasons.get(pointId) ?? []), reason]);
  };
  const cuts = [...cutsOf(machines.flatMap(({ points }) => points)).values()];
  const whole = cuts.filter(({ isWhole }) => isWhole);
  for (const cut of whole) {
    if (cut.points.some((point) => point.reasons.length > 0)) keep(cut.points, 'group');
    if (!whole.some((other) => isSameGroup(other, cut) && isLater(other, cut)))
      keep(cut.points, 'newest-group');
  }
  const awaited = new Set(cuts.filter((cut) => !cut.isWhole && mayComeTrue(cut, machines)));
  for (const { machineId, points } of machines) {
    const open = points.filter(({ group }) =>
      [...awaited].some(
        (cut) => cut.group.cutId === group?.cutId && cut.points.some((p) => p.machineId === machineId),
      ),
    );
    keep(open.slice(0, AWAITED_MAX), 'group-awaited');
  }
  return reasons;
}

function isSameGroup(one: CutOfPoints<GroupedPoint>, other: CutOfPoints<GroupedPoint>): boolean {
  return one.group.groupId === other.group.groupId;
}

/** Each machine sends in the order of its cuts: one that has a younger point will not send the one that is missing. */
function mayComeTrue(
  { group, points }: CutOfPoints<GroupedCandidate>,
  machines: readonly GroupedMachine[],
): boolean {
  const cutAtMs = Math.max(...points.map((point) => point.cutAtMs));
  return group.members.every(({ machineId, pointId }) => {
    if (points.some((point) => point.pointId === pointId)) return true;
    const machine = machines.find((candidate) => candidate.machineId === machineId);
    if (!machine) return false;
    const newest = machine.points.at(-1);
    return newest === undefined || newest.cutAtMs < cutAtMs;
  });
}
