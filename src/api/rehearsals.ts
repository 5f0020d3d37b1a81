import Type from 'typebox';
import { Id, WallTime } from './common.ts';

const strict = { additionalProperties: false };

/** When a plan is rehearsed: so often, or at the times of a cron expression of five fields in a time zone. */
export const RehearsalTimes = Type.Union([
  Type.Object(
    {
      kind: Type.Literal('interval'),
      everyMs: Type.Integer({ minimum: 60_000, maximum: 366 * 24 * 3_600_000 }),
    },
    strict,
  ),
  Type.Object(
    {
      kind: Type.Literal('fixed'),
      cron: Type.String({ minLength: 9, maxLength: 200 }),
      zone: Type.String({ minLength: 1, maxLength: 64 }),
    },
    strict,
  ),
]);
export type RehearsalTimes = Type.Static<typeof RehearsalTimes>;

/** How long after its time a rehearsal may be missing before that is told. */
export const RehearsalPatience = Type.Integer({ minimum: 60_000, maximum: 366 * 24 * 3_600_000 });

export const RehearseRequest = Type.Object(
  {
    times: RehearsalTimes,
    /** Six hours if absent. */
    withinMs: Type.Optional(RehearsalPatience),
  },
  strict,
);
export type RehearseRequest = Type.Static<typeof RehearseRequest>;

export const RehearsalView = Type.Object({
  plan: Type.String(),
  times: RehearsalTimes,
  withinMs: RehearsalPatience,
  /**
   * `waiting` for its time; `running`; `held`: its time has come, and something hinders it (`reason`); `in-earnest`: machines of the plan
   * run here, and nothing is rehearsed.
   */
  state: Type.Union([
    Type.Literal('waiting'),
    Type.Literal('running'),
    Type.Literal('held'),
    Type.Literal('in-earnest'),
  ]),
  /** Absent where the times come never again. */
  nextAtMs: Type.Optional(WallTime),
  reason: Type.Optional(Type.String()),
  /** The newest rehearsal that was not cancelled has not brought every machine up. */
  isFailing: Type.Boolean(),
  /** No rehearsal has passed for longer than is allowed. */
  isOverdue: Type.Boolean(),
  /** Of the newest rehearsal, whoever has begun it. */
  lastRunId: Type.Optional(Id),
  /** When the newest one began that passed. */
  lastPassedAtMs: Type.Optional(WallTime),
});
export type RehearsalView = Type.Static<typeof RehearsalView>;
