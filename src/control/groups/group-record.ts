import { join } from 'node:path';
import Type from 'typebox';
import { assert } from '../../lib/assert.ts';
import { isId } from '../../lib/random.ts';
import { recordKind } from '../../lib/records.ts';
import type { CopySchedule } from '../../recovery-point/index.ts';

const GroupSchema = Type.Object({
  groupId: Type.String(),
  name: Type.String(),
  createdAtMs: Type.Integer({ minimum: 0 }),
  /** All members are protected to this site. */
  targetSiteId: Type.String(),
  /** Ids of machines at home here. */
  members: Type.Array(Type.String(), { minItems: 1, maxItems: 64 }),
  /** Milliseconds between two cuts, by copy type. */
  every: Type.Record(Type.String(), Type.Integer({ minimum: 500 })),
  /** Longest time for which the machines stand still for a cut. */
  limitMs: Type.Integer({ minimum: 50, maximum: 10_000 }),
});
/** `groups/<group>.json`: machines that are copied at one instant. */
export type GroupRecord = Type.Static<typeof GroupSchema>;
export const GROUP_RECORD = recordKind('group', 1, GroupSchema);

export function groupsDirectory(dataDirectory: string): string {
  return join(dataDirectory, 'groups');
}

export function groupPath(dataDirectory: string, groupId: string): string {
  assert(isId(groupId), 'a group id names a file');
  return join(groupsDirectory(dataDirectory), `${groupId}.json`);
}

export function schedulesOf({ every }: GroupRecord): CopySchedule[] {
  return Object.entries(every).map(([copyType, everyMs]) => ({
    copyType,
    triggers: [{ kind: 'interval', everyMs }],
  }));
}
