import Type from 'typebox';
import { Bytes, CopyTypeName, Count, FailureShape, Id, Reference, WallTime } from './common.ts';
import { Every } from './policies.ts';

const strict = { additionalProperties: false };
const Members = Type.Array(Reference, { minItems: 1, maxItems: 64 });
/** How long the machines may stand still for a cut. */
const LimitMs = Type.Integer({ minimum: 50, maximum: 10_000 });

/** Machines that are copied at one instant; docs/consistency.md, «Groups». */
export const CreateGroupRequest = Type.Object(
  {
    name: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' }),
    /** Machines of this site, by name or id, all protected to the same target. */
    members: Members,
    /** Milliseconds between cuts of the group, by copy type; absent: on somebody's word alone. */
    every: Type.Optional(Every),
    limitMs: Type.Optional(LimitMs),
  },
  strict,
);
export type CreateGroupRequest = Type.Static<typeof CreateGroupRequest>;

/** What is named takes the place of what was. */
export const ChangeGroupRequest = Type.Object(
  { members: Type.Optional(Members), every: Type.Optional(Every), limitMs: Type.Optional(LimitMs) },
  strict,
);
export type ChangeGroupRequest = Type.Static<typeof ChangeGroupRequest>;

export const CutGroupRequest = Type.Object({ type: Type.Optional(CopyTypeName) }, strict);

/** What became of one cut. */
export const GroupCutView = Type.Object({
  cutId: Id,
  copyType: Type.String(),
  atMs: WallTime,
  /** From the stop of the first machine until the last one ran again. */
  pauseMs: Type.Number(),
  /** The points of all members are one state. */
  together: Type.Boolean(),
  /** Why not, if not. */
  reason: Type.Optional(Type.String()),
  members: Type.Array(
    Type.Object({
      machineId: Id,
      name: Type.String(),
      pointId: Type.Optional(Id),
      /** Why the machine has no copy of this occasion. */
      error: Type.Optional(FailureShape),
    }),
  ),
});
export type GroupCutView = Type.Static<typeof GroupCutView>;

/** A cut of which this site holds the verified points of all members. */
export const GroupPointView = Type.Object({
  cutId: Id,
  groupId: Id,
  groupName: Type.String(),
  copyType: Type.String(),
  /** The least of its members. */
  consistency: Type.String(),
  /** When it was cut, on this site's clock. */
  cutAtMs: WallTime,
  pauseMs: Type.Number(),
  members: Type.Array(
    Type.Object({
      machineId: Id,
      name: Type.String(),
      pointId: Id,
      sequence: Count,
      receivedBytes: Bytes,
      /** Why retention keeps it; empty: it may go, and the others with it. */
      keptFor: Type.Array(Type.String()),
    }),
  ),
});
export type GroupPointView = Type.Static<typeof GroupPointView>;

export const GroupView = Type.Object({
  groupId: Id,
  name: Type.String(),
  /** `protected`: it is set up here; `replica`: points of it have come from another site. */
  role: Type.Union([Type.Literal('protected'), Type.Literal('replica')]),
  members: Type.Array(Type.Object({ machineId: Id, name: Type.String() })),
  targetSiteId: Type.Optional(Id),
  targetName: Type.Optional(Type.String()),
  every: Type.Optional(Every),
  limitMs: Type.Optional(Type.Integer()),
  nextDue: Type.Optional(Type.Object({ copyType: Type.String(), inMs: Type.Number() })),
  /** The last cut, while this process has run. */
  lastCut: Type.Optional(GroupCutView),
  /** Of a replica: how many whole cuts of it are here, and the newest one. */
  points: Type.Optional(Count),
  newest: Type.Optional(GroupPointView),
});
export type GroupView = Type.Static<typeof GroupView>;
