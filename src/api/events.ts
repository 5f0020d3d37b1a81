import Type from 'typebox';
import { Id } from './common.ts';
import { StandstillReason } from './machines.ts';
import { AlertView, JobView } from './site.ts';

/**
 * What `GET /v1/events` streams (server-sent events; `event:` is the member `event`, `data:` the whole object). Events
 * tell that something changed; the state is asked for. A listener that is too slow is disconnected and starts anew.
 */
export const SiteEvent = Type.Union([
  Type.Object({ event: Type.Literal('job'), job: JobView }),
  Type.Object({ event: Type.Literal('alert'), alert: AlertView }),
  Type.Object({
    event: Type.Literal('point'),
    /** `cut` and `acknowledged` at the protected site, `published` and `retired` at the recovery site. */
    change: Type.Union([
      Type.Literal('cut'),
      Type.Literal('acknowledged'),
      Type.Literal('published'),
      Type.Literal('retired'),
    ]),
    machineId: Id,
    pointId: Type.Optional(Id),
    sequence: Type.Optional(Type.Integer()),
  }),
  /** A run of a plan has come further. */
  Type.Object({ event: Type.Literal('plan-run'), runId: Id }),
  /** A plan was stored or removed, here or by word of another site. */
  Type.Object({ event: Type.Literal('plan'), plan: Type.String() }),
  Type.Object({
    event: Type.Literal('machine'),
    machineId: Id,
    state: Type.String(),
    /** The process runs, and the guest in it stands still. */
    standstill: Type.Optional(StandstillReason),
  }),
]);
export type SiteEvent = Type.Static<typeof SiteEvent>;
