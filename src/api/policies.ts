import Type from 'typebox';
import { CopyTypeName } from './common.ts';

/** When copies are made, which points stay, how fast deltas go; docs/policies.md. */

const YEAR_MS = 366 * 24 * 3600 * 1000;
const Interval = Type.Integer({ minimum: 500, maximum: YEAR_MS });
const Name = Type.String({ pattern: '^[a-z][a-z0-9.-]{0,31}$' });
/** A name of the IANA database. */
const Zone = Type.String({ minLength: 1, maxLength: 64 });
const strict = { additionalProperties: false };

/** Milliseconds between copies, by copy type: the short form of a schedule. */
export const Every = Type.Record(CopyTypeName, Interval, { maxProperties: 16 });

/** A program of the guest, run by its agent without a shell. */
const GuestProgramShape = Type.Object(
  {
    command: Type.String({ pattern: '^[^\\0]+$', maxLength: 4096 }),
    arguments: Type.Array(Type.String({ pattern: '^[^\\0]*$', maxLength: 8192 }), { maxItems: 64 }),
    /** What it reads from its standard input, such as a script. */
    input: Type.Optional(Type.String({ maxLength: 16_384 })),
    limitMs: Type.Integer({ minimum: 100, maximum: 300_000 }),
  },
  strict,
);

/** A program of the guest with a name for its outcome. */
export const AssertionShape = Type.Object({ name: CopyTypeName, ...GuestProgramShape.properties }, strict);

/** A copy type of a machine's own; docs/consistency.md. */
export const CopyTypeShape = Type.Object(
  {
    name: CopyTypeName,
    /** What its copies strive for; `application`: the guest is frozen for the cut. */
    aim: Type.Union([Type.Literal('crash'), Type.Literal('application')]),
    description: Type.Optional(Type.String({ maxLength: 200 })),
    /** What is run in the guest before the freeze, after the thaw, and last if anything failed. */
    hooks: Type.Optional(
      Type.Object(
        {
          before: Type.Optional(GuestProgramShape),
          after: Type.Optional(GuestProgramShape),
          onFailure: Type.Optional(GuestProgramShape),
        },
        strict,
      ),
    ),
    /** What must hold in a guest that is booted from a point of this type: the program ends with exit code 0. */
    assertions: Type.Optional(Type.Array(AssertionShape, { maxItems: 8 })),
  },
  strict,
);
export type CopyTypeShape = Type.Static<typeof CopyTypeShape>;

export const TriggerShape = Type.Union([
  Type.Object({ kind: Type.Literal('interval'), everyMs: Interval }, strict),
  /** A cron expression of five fields. */
  Type.Object({ kind: Type.Literal('fixed'), cron: Type.String({ maxLength: 200 }), zone: Zone }, strict),
  Type.Object({ kind: Type.Literal('variable'), minimumMs: Interval, maximumMs: Interval }, strict),
  Type.Object({ kind: Type.Literal('call'), name: Name }, strict),
  Type.Object({ kind: Type.Literal('guest'), port: Name }, strict),
  /** When the guest has written so much since the last copy of the type. */
  Type.Object(
    { kind: Type.Literal('written'), bytes: Type.Integer({ minimum: 1024 * 1024, maximum: 2 ** 50 }) },
    strict,
  ),
]);
export type TriggerShape = Type.Static<typeof TriggerShape>;

export const ScheduleShape = Type.Object(
  { copyType: CopyTypeName, triggers: Type.Array(TriggerShape, { maxItems: 16 }) },
  strict,
);
export type ScheduleShape = Type.Static<typeof ScheduleShape>;

const Weekday = Type.Union([
  Type.Literal('sun'),
  Type.Literal('mon'),
  Type.Literal('tue'),
  Type.Literal('wed'),
  Type.Literal('thu'),
  Type.Literal('fri'),
  Type.Literal('sat'),
]);

/** Hours of the week in local time; `to` is not in it, and where it is not later than `from` it means the next day. */
export const WindowShape = Type.Object(
  {
    days: Type.Array(Weekday, { minItems: 1, maxItems: 7 }),
    from: Type.String({ pattern: '^([01]\\d|2[0-3]):[0-5]\\d$' }),
    to: Type.String({ pattern: '^(([01]\\d|2[0-3]):[0-5]\\d|24:00)$' }),
    zone: Zone,
  },
  strict,
);
export type WindowShape = Type.Static<typeof WindowShape>;

export const LimitWindowShape = Type.Object(
  {
    window: WindowShape,
    /** null: no limit in these hours. */
    bytesPerSecond: Type.Union([Type.Integer({ minimum: 1024 }), Type.Null()]),
  },
  strict,
);
export type LimitWindowShape = Type.Static<typeof LimitWindowShape>;

const Places = Type.Integer({ minimum: 0, maximum: 128 });

/** The newest point of each of so many hours, days, … */
export const CalendarShape = Type.Object(
  {
    zone: Zone,
    hourly: Type.Optional(Places),
    daily: Type.Optional(Places),
    weekly: Type.Optional(Places),
    monthly: Type.Optional(Places),
    yearly: Type.Optional(Places),
  },
  strict,
);

/** How many points of each type stay; the newest of so many hours, days, …; and how old such a point may be. */
export const Retention = Type.Object(
  {
    types: Type.Record(CopyTypeName, Places, { maxProperties: 32 }),
    calendar: Type.Optional(CalendarShape),
    maximumAgeMs: Type.Optional(Type.Integer({ minimum: 60_000, maximum: 100 * YEAR_MS })),
  },
  strict,
);
export type Retention = Type.Static<typeof Retention>;

export const PreviewRequest = Type.Object(
  {
    /** The policy that would be; absent: the present one. */
    retention: Type.Optional(Retention),
  },
  strict,
);
export type PreviewRequest = Type.Static<typeof PreviewRequest>;

/** What a retention policy would do with the points that there are now; nothing has been done. */
export const PreviewAnswer = Type.Object({
  retention: Retention,
  points: Type.Array(
    Type.Object({
      pointId: Type.String(),
      sequence: Type.Integer(),
      copyType: Type.String(),
      /** On the clock of the recovery site. */
      cutAtMs: Type.Integer(),
      /** Empty: it would go. */
      keptFor: Type.Array(Type.String()),
    }),
  ),
});
export type PreviewAnswer = Type.Static<typeof PreviewAnswer>;

/** The copy types that are due now for a trigger that was pulled. */
export const TriggerAnswer = Type.Object({ copyTypes: Type.Array(Type.String()) });

/** How far apart copies are that a target gets, at the least; every copy if absent. */
export const Spacing = Type.Integer({ minimum: 1000, maximum: 366 * 24 * 3600 * 1000 });
