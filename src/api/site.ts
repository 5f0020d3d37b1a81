import Type from 'typebox';
import { AbsolutePath, Address, Bytes, Count, FailureShape, Id, WallTime } from './common.ts';

/** Another site, as this one knows it. */
export const PeerView = Type.Object({
  siteId: Id,
  name: Type.String(),
  address: Address,
  pairedAtMs: WallTime,
  revokedAtMs: Type.Optional(WallTime),
  /** `unknown` until the first heartbeat of this process has ended. */
  presence: Type.Union([Type.Literal('reachable'), Type.Literal('silent'), Type.Literal('unknown')]),
  lastSeenAtMs: Type.Optional(WallTime),
  /** Clock of the peer minus clock of this site. */
  skewMs: Type.Optional(Type.Number()),
  roundTripMs: Type.Optional(Type.Number()),
  version: Type.Optional(Type.String()),
});
export type PeerView = Type.Static<typeof PeerView>;

export const SiteView = Type.Object({
  siteId: Id,
  name: Type.String(),
  version: Type.String(),
  dataDirectory: AbsolutePath,
  apiAddress: Address,
  peerAddress: Address,
  startedAtMs: WallTime,
  machines: Type.Object({ protected: Count, replicas: Count, broken: Count }),
  /** Points of all replicas. */
  points: Count,
  alerts: Count,
  peers: Type.Array(PeerView),
  /** Names the key that the points made here are signed by; people compare it where these are forwarded to. */
  keyId: Type.Optional(Type.String()),
});
export type SiteView = Type.Static<typeof SiteView>;

export const TokenRequest = Type.Object(
  {
    /** At most 15 minutes, which is also what holds if absent. */
    lifetimeMs: Type.Optional(Type.Integer({ minimum: 1, maximum: 15 * 60 * 1000 })),
    /** Where the other site reaches this one; the address in `site.json` if absent. */
    host: Type.Optional(Type.String({ minLength: 1, maxLength: 253 })),
  },
  { additionalProperties: false },
);
export const TokenView = Type.Object({ token: Type.String(), expiresAtMs: WallTime });

export const PairRequest = Type.Object(
  {
    token: Type.String({ minLength: 1, maxLength: 2048 }),
    /** Where the other site reaches this one; the address in `site.json` if absent. */
    host: Type.Optional(Type.String({ minLength: 1, maxLength: 253 })),
  },
  { additionalProperties: false },
);

/** Ends the trust in another site. */
export const RemovePeerRequest = Type.Object(
  {
    /** Also when machines are protected to it or replicas come from it; both then stand still. */
    force: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);

/** Where another site is reached from now on. */
export const PeerAddressRequest = Type.Object(
  {
    host: Type.String({ pattern: '^[0-9A-Za-z._:-]{1,253}$' }),
    port: Type.Integer({ minimum: 1, maximum: 65_535 }),
  },
  { additionalProperties: false },
);

/** What a rebuild found in the directories. */
export const RebuildReport = Type.Object({
  machines: Count,
  replicas: Count,
  points: Count,
  broken: Type.Array(Type.Object({ machineId: Type.String(), error: FailureShape })),
});
export type RebuildReport = Type.Static<typeof RebuildReport>;

export const AlertView = Type.Object({
  /** Names what the alert is about; raising the same key again renews it. */
  key: Type.String(),
  severity: Type.Union([Type.Literal('warning'), Type.Literal('critical')]),
  code: Type.String(),
  message: Type.String(),
  remedy: Type.String(),
  machineId: Type.Optional(Type.String()),
  raisedAtMs: WallTime,
  updatedAtMs: WallTime,
  /** Absent while the alert stands. */
  clearedAtMs: Type.Optional(WallTime),
  count: Count,
});
export type AlertView = Type.Static<typeof AlertView>;

export const AuditView = Type.Object({
  sequence: Count,
  atMs: WallTime,
  /** `operator:<token name>`, `trigger:<trigger id>`, `peer:<site id>` or `site` for what the site does by itself. */
  actor: Type.String(),
  act: Type.String(),
  /** An intent stands before its act; its result names it in `intent`. */
  phase: Type.Union([Type.Literal('intent'), Type.Literal('done'), Type.Literal('failed')]),
  intent: Type.Optional(Count),
  subject: Type.Optional(Type.String()),
  details: Type.Record(Type.String(), Type.Unknown()),
  /** SHA-256 over the row before and this one, hexadecimal. */
  hash: Type.String(),
});
export type AuditView = Type.Static<typeof AuditView>;

export const AuditAnswer = Type.Object({
  entries: Type.Array(AuditView),
  /** Whether the chain of hashes is whole; otherwise the first entry that does not fit. */
  chain: Type.Union([
    Type.Object({ state: Type.Literal('whole') }),
    Type.Object({ state: Type.Literal('broken'), atSequence: Count }),
  ]),
});

export const DoctorCheck = Type.Object({
  check: Type.String(),
  verdict: Type.Union([Type.Literal('ok'), Type.Literal('warning'), Type.Literal('failed')]),
  /** What was found. */
  found: Type.String(),
  /** What to do about it; absent where all is well. */
  remedy: Type.Optional(Type.String()),
});
export type DoctorCheck = Type.Static<typeof DoctorCheck>;

/** Whether the machine of a point would start at the site that is asked, as far as is known ahead. */
export const StartCheckView = Type.Object({
  pointId: Type.String(),
  sequence: Count,
  wouldStart: Type.Boolean(),
  findings: Type.Array(
    Type.Object({
      /** It would not start; otherwise it starts and is not the same. */
      prevents: Type.Boolean(),
      code: Type.String(),
      found: Type.String(),
      remedy: Type.String(),
    }),
  ),
});
export type StartCheckView = Type.Static<typeof StartCheckView>;

export const DoctorReport = Type.Object({
  verdict: Type.Union([Type.Literal('ok'), Type.Literal('warning'), Type.Literal('failed')]),
  checks: Type.Array(DoctorCheck),
});
export type DoctorReport = Type.Static<typeof DoctorReport>;

export const Progress = Type.Object({
  bytesDone: Type.Optional(Bytes),
  bytesTotal: Type.Optional(Bytes),
  /** What is being done, in a few words. */
  step: Type.Optional(Type.String()),
});
export type Progress = Type.Static<typeof Progress>;

export const JobView = Type.Object({
  jobId: Id,
  kind: Type.Union([
    Type.Literal('point.create'),
    Type.Literal('point.verify'),
    Type.Literal('failover.test'),
    Type.Literal('failover.start'),
    Type.Literal('failover.restart'),
    Type.Literal('failover.stop'),
    Type.Literal('failover.forward'),
    Type.Literal('failover.prepare'),
    Type.Literal('failover.cede'),
    Type.Literal('failover.take'),
    Type.Literal('failover.undo'),
    Type.Literal('failover.cleanup'),
    Type.Literal('failover.export'),
    Type.Literal('seed.export'),
    Type.Literal('seed.import'),
    Type.Literal('plan.run'),
    Type.Literal('drill.run'),
  ]),
  state: Type.Union([
    Type.Literal('queued'),
    Type.Literal('running'),
    Type.Literal('done'),
    Type.Literal('failed'),
    Type.Literal('cancelled'),
  ]),
  machineId: Type.String(),
  args: Type.Record(Type.String(), Type.Unknown()),
  actor: Type.String(),
  createdAtMs: WallTime,
  startedAtMs: Type.Optional(WallTime),
  endedAtMs: Type.Optional(WallTime),
  progress: Progress,
  /** What the act returned. */
  result: Type.Optional(Type.Unknown()),
  failure: Type.Optional(FailureShape),
});
export type JobView = Type.Static<typeof JobView>;
