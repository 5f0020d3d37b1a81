import Type from 'typebox';
import { CopyTypeName, Id, WallTime } from './common.ts';
import { Probes } from './failovers.ts';
import { WindowShape } from './policies.ts';

/** Points that are booted in isolation by the recovery site itself, so that they are proven; docs/policies.md. */

const YEAR_MS = 366 * 24 * 3_600_000;
const strict = { additionalProperties: false };
const MemoryBytes = Type.Integer({ minimum: 16 * 1024 * 1024, maximum: 2 ** 46 });

/** Which points of a machine are drilled, how, and how soon. */
export const DrillPolicyShape = Type.Object(
  {
    /** Each point of these types; each application-consistent one if absent. */
    copyTypes: Type.Optional(Type.Array(CopyTypeName, { minItems: 1, maxItems: 32 })),
    /** The newest of the other points too, no more often than this says; none of them if absent. */
    others: Type.Optional(
      Type.Object(
        {
          everyPoints: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
          everyMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: YEAR_MS })),
        },
        strict,
      ),
    ),
    /** An alert is raised when the proof of a point is missing for so long after its arrival. */
    proveWithinMs: Type.Integer({ minimum: 1000, maximum: YEAR_MS }),
    /** The guest agent if absent. */
    probes: Type.Optional(Probes),
    /** In place of the machine's own memory. */
    memoryBytes: Type.Optional(MemoryBytes),
  },
  strict,
);
export type DrillPolicyShape = Type.Static<typeof DrillPolicyShape>;

/** What all drills of a site may take together. */
export const DrillBudgetShape = Type.Object(
  {
    /** The memory of the guests that run at once. */
    memoryBytes: MemoryBytes,
    /** So many run at once. */
    atOnce: Type.Integer({ minimum: 1, maximum: 1000 }),
    /** Of the time of one CPU of this host, all together; 200 are two CPUs. Not limited if absent. */
    cpuPercent: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
    /** Share of the CPUs of each while others want them too; 100 is what everybody has. */
    cpuWeight: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
    /** Hours in which no drill begins by itself. */
    quiet: Type.Array(WindowShape, { maxItems: 16 }),
  },
  strict,
);
export type DrillBudgetShape = Type.Static<typeof DrillBudgetShape>;

const { memoryBytes, atOnce, cpuPercent, cpuWeight, quiet } = DrillBudgetShape.properties;

/** What is not named stays as it is. */
export const DrillBudgetRequest = Type.Object(
  {
    memoryBytes: Type.Optional(memoryBytes),
    atOnce: Type.Optional(atOnce),
    cpuPercent: Type.Optional(Type.Union([cpuPercent, Type.Null()])),
    cpuWeight: Type.Optional(Type.Union([cpuWeight, Type.Null()])),
    quiet: Type.Optional(quiet),
  },
  strict,
);
export type DrillBudgetRequest = Type.Static<typeof DrillBudgetRequest>;

export const DrillPolicyView = Type.Object({
  /** null: no point is drilled by itself. */
  policy: Type.Union([DrillPolicyShape, Type.Null()]),
  /** Whose word it is: that of this machine, or the one for all machines that have none of their own. */
  from: Type.Union([Type.Literal('machine'), Type.Literal('site'), Type.Literal('nobody')]),
});
export type DrillPolicyView = Type.Static<typeof DrillPolicyView>;

export const DrillNowRequest = Type.Object(
  {
    /** The newest that would be drilled by itself, or the newest of all. */
    point: Type.Optional(Type.String({ minLength: 1, maxLength: 32 })),
  },
  strict,
);
export type DrillNowRequest = Type.Static<typeof DrillNowRequest>;

/** Where a machine stands with its proofs. */
const DrillMachineView = Type.Object({
  machineId: Type.String(),
  name: Type.String(),
  from: DrillPolicyView.properties.from,
  isPaused: Type.Boolean(),
  /** `none-meant`: no point of it is one that is drilled. `unproven`: nothing is tried any more before another point comes. */
  state: Type.Union([
    Type.Literal('proven'),
    Type.Literal('waiting'),
    Type.Literal('running'),
    Type.Literal('failing'),
    Type.Literal('too-large'),
    Type.Literal('nothing-to-ask'),
    Type.Literal('none-meant'),
    Type.Literal('unproven'),
  ]),
  /** Points whose turn comes. */
  waiting: Type.Integer(),
  isOverdue: Type.Boolean(),
  /** Since when a proof is missing; absent: none is. */
  unprovenSinceMs: Type.Optional(WallTime),
  /** When the alert is raised, or was. */
  dueAtMs: Type.Optional(WallTime),
  newestProven: Type.Optional(
    Type.Object({
      pointId: Type.String(),
      sequence: Type.Integer(),
      provenAtMs: WallTime,
      /** From the command to the last probe that passed. */
      rtoMs: Type.Union([Type.Number(), Type.Null()]),
    }),
  ),
  /** Why it is as it is, where there is more to say. */
  reason: Type.Optional(Type.String()),
});
export type DrillMachineView = Type.Static<typeof DrillMachineView>;

export const DrillStatusView = Type.Object({
  budget: DrillBudgetShape,
  /** What drills under way take of it. */
  usedBytes: Type.Integer(),
  isPaused: Type.Boolean(),
  /** No drill begins before, because of quiet hours. */
  quietUntilMs: Type.Optional(WallTime),
  /** A failover is under way, and no drill begins. */
  givesWay: Type.Boolean(),
  /** For machines that have no policy of their own. */
  sitePolicy: Type.Union([DrillPolicyShape, Type.Null()]),
  machines: Type.Array(DrillMachineView),
});
export type DrillStatusView = Type.Static<typeof DrillStatusView>;

/** One drill: under way, or how it ended. */
export const DrillView = Type.Object({
  jobId: Id,
  machineId: Type.String(),
  pointId: Type.String(),
  sequence: Type.Integer(),
  actor: Type.String(),
  /** `hindered`: it could not be carried out, and says nothing of the point. */
  outcome: Type.Union([
    Type.Literal('queued'),
    Type.Literal('running'),
    Type.Literal('passed'),
    Type.Literal('failed'),
    Type.Literal('refuted'),
    Type.Literal('unproven'),
    Type.Literal('hindered'),
    Type.Literal('interrupted'),
    Type.Literal('cancelled'),
    Type.Literal('gave-way'),
  ]),
  startedAtMs: Type.Optional(WallTime),
  endedAtMs: Type.Optional(WallTime),
  rtoMs: Type.Optional(Type.Number()),
  /** Why it ended so. */
  reason: Type.Optional(Type.String()),
});
export type DrillView = Type.Static<typeof DrillView>;
