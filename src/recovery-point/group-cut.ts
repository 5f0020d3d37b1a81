import Type from 'typebox';
import { ID_PATTERN } from '../lib/random.ts';

/** More machines than this are not stopped at a time. */
const GROUP_MEMBERS_MAX = 64;

const Id = Type.String({ pattern: ID_PATTERN });

/**
 * What makes a point one of several: the cut of a group, at one instant of all its machines. Signed as part of the statement
 * of every member. docs/consistency.md, «Groups».
 */
export const GroupCut = Type.Object({
  version: Type.Literal(1),
  groupId: Id,
  groupName: Type.String({ minLength: 1, maxLength: 64 }),
  /** The same for all members. */
  cutId: Id,
  /** From the stop of the first machine until the last one ran again. */
  pauseMs: Type.Number({ minimum: 0 }),
  /** Every member with its point of this cut, this one included; in ascending order of machines. */
  members: Type.Array(Type.Object({ machineId: Id, pointId: Id }), {
    minItems: 1,
    maxItems: GROUP_MEMBERS_MAX,
  }),
});
export type GroupCut = Type.Static<typeof GroupCut>;
