import Type from 'typebox';
import {
  Bytes,
  ConsistencyName,
  CopyTypeName,
  Count,
  FailureShape,
  Id,
  Reference,
  WallTime,
} from './common.ts';
import { CalendarShape, LimitWindowShape, Retention, Spacing } from './policies.ts';
import { Rpo, TargetReplicationView } from './replication-view.ts';

const strict = { additionalProperties: false };

/** One site that the points of a replica are forwarded to. */
const ForwardView = Type.Object({
  ...TargetReplicationView.properties,
  /** What it keeps. */
  retention: Retention,
  /** It gets points of these types alone; of all if absent. */
  copyTypes: Type.Optional(Type.Array(Type.String())),
  spacingMs: Type.Optional(Type.Integer()),
  bytesPerSecond: Type.Optional(Type.Integer()),
  compression: Type.Boolean(),
});

/** The side of a machine that another site replicates here. */
export const ReplicaView = Type.Object({
  /**
   * `offered`: the machine has ended at its site and may be taken over; `held`: it is at home here since; `given-up`: it was, and its
   * site may take it back.
   */
  right: Type.Optional(
    Type.Union([
      Type.Literal('offered'),
      Type.Literal('held'),
      Type.Literal('given-up'),
      Type.Literal('adopted'),
    ]),
  ),
  /**
   * `seeding`: it has no point that can be used yet. `standby`: definition and disks are here, and any of its points can be brought up
   * as it is. `failed-over`: that has been done, and the branch is here. `broken`: as `broken` says.
   */
  state: Type.Union([
    Type.Literal('seeding'),
    Type.Literal('standby'),
    Type.Literal('failed-over'),
    Type.Literal('broken'),
  ]),
  sourceSiteId: Type.String(),
  sourceName: Type.Optional(Type.String()),
  /** The site that brings the points, where that is not the one that makes them. */
  viaSiteId: Type.Optional(Type.String()),
  viaName: Type.Optional(Type.String()),
  /** The sites that the points are forwarded to from here. */
  forwards: Type.Optional(Type.Array(ForwardView)),
  points: Count,
  branches: Count,
  retention: Type.Optional(Retention),
  newest: Type.Optional(
    Type.Object({
      pointId: Id,
      sequence: Count,
      copyType: Type.String(),
      consistency: ConsistencyName,
      /** When it was cut, on this site's clock. */
      cutAtMs: WallTime,
      /** The clock of the source minus the one here, when it was sent; `cutAtMs` and the RPO have it taken off. */
      skewMs: Type.Optional(Type.Number()),
    }),
  ),
  /** Its base comes by courier and has not been imported: no point can be used. */
  awaitsSeed: Type.Optional(Type.Literal(true)),
  /** A delta of which a part has arrived. */
  incoming: Type.Optional(Type.Object({ pointId: Id, receivedBytes: Type.Optional(Bytes) })),
  rpo: Rpo,
  /** As `broken` of the machine. */
  broken: Type.Optional(FailureShape),
});

/** Forwards the points of a replica to another site, or changes what that site gets: what is not said is as before. */
export const ForwardReplicaRequest = Type.Object(
  {
    /** By name or id. */
    to: Reference,
    /** What it keeps; as here if nothing was ever said. */
    retention: Type.Optional(Retention),
    /** Points of these types alone; null: of all. */
    copyTypes: Type.Optional(
      Type.Union([Type.Array(CopyTypeName, { minItems: 1, maxItems: 32 }), Type.Null()]),
    ),
    limitWindows: Type.Optional(Type.Array(LimitWindowShape, { maxItems: 64 })),
    compression: Type.Optional(Type.Boolean()),
    /** null takes the limit away. */
    bytesPerSecond: Type.Optional(Type.Union([Type.Integer({ minimum: 1024 }), Type.Null()])),
    /** null: every point. */
    spacingMs: Type.Optional(Type.Union([Spacing, Type.Null()])),
  },
  strict,
);
export type ForwardReplicaRequest = Type.Static<typeof ForwardReplicaRequest>;

/** What a site keeps of every replica, by when points arrived, whatever their senders say; without a calendar nothing. */
export const FloorView = Type.Object({ calendar: Type.Optional(CalendarShape) }, strict);
export type FloorView = Type.Static<typeof FloorView>;

/** null takes it away. */
export const FloorRequest = Type.Object({ calendar: Type.Union([CalendarShape, Type.Null()]) }, strict);
export type FloorRequest = Type.Static<typeof FloorRequest>;

/** A site that is not paired with this one and whose points others forward here, or want to. */
export const OriginView = Type.Object({
  siteId: Id,
  /** As those call it who forward its points: a stranger's word. */
  name: Type.String(),
  /** Names the key that its points are signed by; `warmsite site show` there must show the same. */
  keyId: Type.String(),
  /** Who has told of it. */
  viaSiteId: Type.String(),
  viaName: Type.Optional(Type.String()),
  toldAtMs: WallTime,
  /** Absent: nobody has confirmed it, and no point of it is taken. */
  confirmedAtMs: Type.Optional(WallTime),
});
export type OriginView = Type.Static<typeof OriginView>;

/** `keyId` as the origin itself shows it. */
export const ConfirmOriginRequest = Type.Object(
  { keyId: Type.String({ minLength: 1, maxLength: 64 }) },
  strict,
);
