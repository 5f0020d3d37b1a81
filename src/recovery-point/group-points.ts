import type { GroupCut } from './group-cut.ts';

/** A point with the cut that it says it belongs to. */
export interface GroupedPoint {
  readonly machineId: string;
  readonly pointId: string;
  /** Order within the machine. */
  readonly sequence: number;
  readonly group?: GroupCut | undefined;
}

/** A cut of a group, and the points of it that are there. */
export interface CutOfPoints<P extends GroupedPoint> {
  readonly group: GroupCut;
  /** In the order of the members. */
  readonly points: readonly P[];
  /** The points of all members are there and agree on it. */
  readonly isWhole: boolean;
}

/** The cuts that points belong to, by their id. Points that say different things of a cut make none of it. Pure. */
export function cutsOf<P extends GroupedPoint>(points: Iterable<P>): ReadonlyMap<string, CutOfPoints<P>> {
  const byCut = new Map<string, P[]>();
  for (const point of points) {
    const { cutId } = point.group ?? {};
    if (cutId !== undefined) byCut.set(cutId, [...(byCut.get(cutId) ?? []), point]);
  }
  return new Map([...byCut].map(([cutId, found]) => [cutId, cutOf(found)]));
}

function cutOf<P extends GroupedPoint>(found: readonly P[]): CutOfPoints<P> {
  const group = found[0]!.group!;
  const said = saidOf(group);
  const agreed = found.filter((point) => saidOf(point.group!) === said);
  const points = group.members.flatMap(
    (member) =>
      agreed.find(({ machineId, pointId }) => machineId === member.machineId && pointId === member.pointId) ??
      [],
  );
  const isWhole = agreed.length === found.length && points.length === group.members.length;
  return { group, points, isWhole };
}

/** Whether a point is of a later cut than another one of the same group; undecided where they have no machine in common. */
export function isLater<P extends GroupedPoint>(cut: CutOfPoints<P>, than: CutOfPoints<P>): boolean {
  return cut.points.some(({ machineId, sequence }) =>
    than.points.some((other) => other.machineId === machineId && sequence > other.sequence),
  );
}

function saidOf({ groupId, cutId, members }: GroupCut): string {
  const names = members.map(({ machineId, pointId }) => `${machineId} ${pointId}`);
  return [groupId, cutId, ...names].join('\n');
}
