import Type from 'typebox';
import { COPY_TYPE_NAME } from './copy-type.ts';
import { Window } from './windows.ts';

const YEAR_MS = 366 * 86_400_000;
const Interval = Type.Integer({ minimum: 500, maximum: YEAR_MS });
/** What a person calls an event, a copy type or a port of the guest. */
const Name = Type.String({ pattern: '^[a-z][a-z0-9.-]{0,31}$' });

/** Less is not worth a copy: a layer grows by 128 KiB for the smallest write. */
const Written = Type.Integer({ minimum: 1024 * 1024, maximum: 2 ** 50 });

/** What makes a copy due. docs/policies.md says of each when exactly. */
export const Trigger = Type.Union([
  /** So long after the last copy. */
  Type.Object({ kind: Type.Literal('interval'), everyMs: Interval }),
  /** At the times of a cron expression of five fields, in a time zone of the IANA database. */
  Type.Object({
    kind: Type.Literal('fixed'),
    cron: Type.String({ maxLength: 200 }),
    zone: Type.String({ minLength: 1, maxLength: 64 }),
  }),
  /** As often as change rate and link make it worth while, between two bounds. */
  Type.Object({ kind: Type.Literal('variable'), minimumMs: Interval, maximumMs: Interval }),
  /** When somebody calls it by its name. */
  Type.Object({ kind: Type.Literal('call'), name: Name }),
  /** When the guest opens this virtio-serial port; the id of its device. */
  Type.Object({ kind: Type.Literal('guest'), port: Name }),
  /** When the guest has written so much since the last copy of the type. */
  Type.Object({ kind: Type.Literal('written'), bytes: Written }),
]);
export type Trigger = Type.Static<typeof Trigger>;

/** When copies of one type are made: whenever one of its triggers says so. */
export const CopySchedule = Type.Object({
  copyType: Type.String({ pattern: COPY_TYPE_NAME }),
  triggers: Type.Array(Trigger, { maxItems: 16 }),
});
export type CopySchedule = Type.Static<typeof CopySchedule>;

/** When a machine is copied. */
export const CopyPlan = Type.Object({
  /** One for each copy type that is made by itself. */
  schedules: Type.Array(CopySchedule, { maxItems: 16 }),
  /** Hours in which none is made, but on somebody's word. */
  blackouts: Type.Optional(Type.Array(Window, { maxItems: 64 })),
});
export type CopyPlan = Type.Static<typeof CopyPlan>;
