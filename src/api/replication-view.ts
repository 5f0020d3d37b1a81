import Type from 'typebox';
import { Bytes, Count, FailureShape, Id, WallTime } from './common.ts';

/** How much would be lost. */
export const Rpo = Type.Object({
  /** The shortest interval of the schedules, or the longest of a variable one. */
  targetMs: Type.Optional(Type.Number()),
  /** Age of the newest copy that would survive the loss of the protected site, on the answering site's clock. */
  actualMs: Type.Optional(Type.Number()),
});

const Acknowledged = Type.Object({
  pointId: Id,
  sequence: Count,
  atMs: WallTime,
  /** When the acknowledged copy was cut; absent if its record has been merged away. */
  cutAtMs: Type.Optional(WallTime),
});

const SeedState = Type.Union([Type.Literal('wanted'), Type.Literal('exported'), Type.Literal('awaited')]);

/** The delta on its way: guest bytes. A complete first copy (seeding) is one where `complete` is true. */
const Transfer = Type.Object({
  pointId: Id,
  complete: Type.Boolean(),
  bytesDone: Bytes,
  bytesTotal: Bytes,
  /** Of those done since the connection began, what an older copy at the target has spared the wire. */
  olderBytes: Type.Optional(Bytes),
  bytesPerSecond: Type.Optional(Type.Number()),
});

const TargetPhase = [
  Type.Literal('idle'),
  Type.Literal('sending'),
  /** A failure is being waited out; see `failure` and `retryInMs`. */
  Type.Literal('retrying'),
  /** A conflict or a stale base: a person decides. It is looked at again every now and then. */
  Type.Literal('blocked'),
] as const;

/** What the replication of one machine to one target is doing. */
export const TargetReplicationView = Type.Object({
  siteId: Type.String(),
  name: Type.Optional(Type.String()),
  phase: Type.Union([...TargetPhase]),
  /** Copies that the target lacks; of those made while it was outrun it gets the changes only. */
  unsentCuts: Count,
  acknowledged: Type.Optional(Acknowledged),
  /**
   * The base goes by courier. `wanted`: nothing is sent before it has been exported; `exported`: the other site has not been
   * told; `awaited`: copies flow, and nothing can be recovered before it has been imported there.
   */
  seed: Type.Optional(SeedState),
  /** The others have left it behind: it gets all that changed in one step when it answers again. */
  outrun: Type.Optional(Type.Literal(true)),
  transfer: Type.Optional(Transfer),
  failure: Type.Optional(FailureShape),
  retryInMs: Type.Optional(Type.Number()),
  rpo: Rpo,
});
export type TargetReplicationView = Type.Static<typeof TargetReplicationView>;

/**
 * What the replication of one machine is doing. Of several targets: phase and failure are those of the worst, what is
 * acknowledged, not sent and lost (RPO) those of the best, because that is what outlives the loss of the protected site.
 */
export const ReplicationView = Type.Object({
  phase: Type.Union([...TargetPhase, Type.Literal('cutting')]),
  unsentCuts: Count,
  acknowledged: Type.Optional(Acknowledged),
  seed: Type.Optional(SeedState),
  transfer: Type.Optional(Transfer),
  nextDue: Type.Optional(
    Type.Object({
      copyType: Type.String(),
      inMs: Type.Number(),
      /** `first`, `interval`, `fixed`, `variable` or `event`. */
      why: Type.Optional(Type.String()),
    }),
  ),
  /** What the guest has written of the amount after which a copy is due, measured for this answer; only where one machine is shown. */
  written: Type.Optional(
    Type.Array(Type.Object({ copyType: Type.String(), writtenBytes: Bytes, dueBytes: Bytes })),
  ),
  /** The last copy that was due and not made, and why. */
  lastSkip: Type.Optional(Type.Object({ reason: Type.String(), atMs: WallTime })),
  failure: Type.Optional(FailureShape),
  retryInMs: Type.Optional(Type.Number()),
  rpo: Rpo,
  /** The worst first. */
  targets: Type.Array(TargetReplicationView),
});
export type ReplicationView = Type.Static<typeof ReplicationView>;
