import Type from 'typebox';
import { Value } from 'typebox/value';
import { COPY_TYPE_NAME } from './copy-type.ts';

/** More points than this are never kept: a disk is read through all layers below a point. */
export const POINTS_MAX = 128;

/** A floor has fewer places: they come on top of those of the policy. */
export const FLOOR_POINTS_MAX = 48;

const Places = Type.Integer({ minimum: 0, maximum: POINTS_MAX });

/** Grandfather, father, son: the newest point of each of so many hours, days, … that have one, in local time. */
export const Calendar = Type.Object({
  zone: Type.String({ minLength: 1, maxLength: 64 }),
  hourly: Type.Optional(Places),
  daily: Type.Optional(Places),
  /** Weeks begin on Monday. */
  weekly: Type.Optional(Places),
  monthly: Type.Optional(Places),
  yearly: Type.Optional(Places),
});
export type Calendar = Type.Static<typeof Calendar>;

/** Which points stay. docs/policies.md, «Retention». */
export const RetentionPolicy = Type.Object({
  /** How many of each copy type, by its name: `{ crash: 4, app: 2, nightly: 7 }`. */
  types: Type.Record(Type.String({ pattern: COPY_TYPE_NAME }), Places, { maxProperties: 32 }),
  calendar: Type.Optional(Calendar),
  /** None of these keeps a point that is older than this. */
  maximumAgeMs: Type.Optional(Type.Integer({ minimum: 60_000, maximum: 100 * 366 * 86_400_000 })),
});
export type RetentionPolicy = Type.Static<typeof RetentionPolicy>;

export const DEFAULT_RETENTION: RetentionPolicy = { types: { crash: 8, app: 4 } };

/** Retention as it was recorded, and sent, by versions that knew two types. */
const OldRetention = Type.Object({ crash: Places, application: Places });
type OldRetention = Type.Static<typeof OldRetention>;

/** What such a record or message means; anything else is given back as it is, to be checked as a policy of today. */
export function retentionOfOld(value: unknown): unknown {
  if (!Value.Check(OldRetention, value)) return value;
  return { types: { crash: value.crash, app: value.application } } satisfies RetentionPolicy;
}

/** The same in the words of those versions; undefined if they have none for it. */
export function oldRetentionOf({ types, calendar, maximumAgeMs }: RetentionPolicy): OldRetention | undefined {
  const { crash = 0, app = 0, ...others } = types;
  const isOld = calendar === undefined && maximumAgeMs === undefined && Object.keys(others).length === 0;
  return isOld ? { crash, application: app } : undefined;
}

/** How many points the policy may keep at the most, besides those that stay in any case. */
export function placesOf({ types, calendar }: RetentionPolicy): number {
  return [...Object.values(types), ...calendarPlaces(calendar)].reduce((sum, places) => sum + places, 0);
}

/** How many points each period of a calendar keeps. */
export function calendarPlaces(calendar: RetentionPolicy['calendar']): number[] {
  const { zone: _zone, ...periods } = calendar ?? { zone: '' };
  return Object.values(periods);
}
