import type { GroupCut } from '../recovery-point/index.ts';

/** A machine that does not take part, and why. */
export interface Absence {
  readonly name: string;
  readonly reason: string;
}

/** Reasons stand in signed statements; what a hypervisor says has no end. */
const REASON_CHARS_MAX = 400;

/** Why there is no common cut; undefined if there may be one. Pure. */
export function reasonApart(absent: readonly Absence[]): string | undefined {
  const [first, ...others] = absent;
  if (!first) return undefined;
  const more = others.length > 0 ? `, and ${others.map(({ name }) => name).join(', ')}` : '';
  return apartFor(`${first.name}: ${first.reason}${more}`);
}

/** As it stands on the point of each member. */
export function apartFor(reason: string): string {
  const said = `no cut of the whole group: ${reason}`;
  return said.length <= REASON_CHARS_MAX ? said : `${said.slice(0, REASON_CHARS_MAX - 1)}…`;
}

/** What is signed with the point of every member. Pure. */
export function groupCutOf(o: {
  readonly group: { readonly groupId: string; readonly name: string };
  readonly cutId: string;
  readonly pauseMs: number;
  readonly points: ReadonlyMap<string, string>;
}): GroupCut {
  const members = [...o.points].map(([machineId, pointId]) => ({ machineId, pointId }));
  members.sort((a, b) => (a.machineId < b.machineId ? -1 : 1));
  return {
    version: 1,
    groupId: o.group.groupId,
    groupName: o.group.name,
    cutId: o.cutId,
    pauseMs: o.pauseMs,
    members,
  };
}
