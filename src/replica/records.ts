import Type from 'typebox';
import { recordKind } from '../lib/records.ts';
import { Claim, RetentionPolicy, retentionOfOld, SignedStatement, Tenure } from '../recovery-point/index.ts';

const Time = Type.Integer({ minimum: 0 });

const ReplicaRecordSchema = Type.Object({
  machineId: Type.String(),
  machineName: Type.String(),
  /** The site that makes the points and signs them. */
  sourceSiteId: Type.String(),
  /** The site that brings them, where that is another one: it holds a replica of the machine itself. */
  viaSiteId: Type.Optional(Type.String()),
  /** The epoch whose deltas are accepted; a failover here raises it and so fences the old source. */
  epoch: Type.Integer({ minimum: 1 }),
  createdAtMs: Time,
  retention: RetentionPolicy,
  /** Where this site stands with the right to run the machine; absent: see `tenureOfReplica`. */
  tenure: Type.Optional(Tenure),
  /** The holder offers its right to this site; the machine has ended there, and this point is its last state. */
  offer: Type.Optional(Type.Object({ claim: Claim, pointId: Type.String() })),
  /** The machine is at home here: its disks lie upon this branch. Nothing is received or merged, so that they stay as they are. */
  adopted: Type.Optional(Type.String()),
});
/** `replica.json`: whose replica this is. */
export type ReplicaRecord = Type.Static<typeof ReplicaRecordSchema>;
export const REPLICA_RECORD = recordKind('replica', 5, ReplicaRecordSchema, (value, version) =>
  version >= 2
    ? value
    : { ...value, retention: retentionOfOld((value as { retention?: unknown }).retention) },
);
const REPLICA_RECORD_4 = recordKind('replica', 4, ReplicaRecordSchema);
const REPLICA_RECORD_3 = recordKind('replica', 3, ReplicaRecordSchema);
const REPLICA_RECORD_2 = recordKind('replica', 2, ReplicaRecordSchema);

/**
 * A program that knows nothing of forwarded points would take them for damage, and their source for the one that brings them. One
 * that knows nothing of tenures would not know that the machine may run here, or has been offered; one that knows nothing of
 * adoptions would merge what a machine runs on.
 */
export function replicaKind({ viaSiteId, tenure, offer, adopted }: ReplicaRecord): typeof REPLICA_RECORD {
  if (adopted !== undefined) return REPLICA_RECORD;
  if (tenure || offer) return REPLICA_RECORD_4;
  return viaSiteId === undefined ? REPLICA_RECORD_2 : REPLICA_RECORD_3;
}

/** What may change of a replica beside its points. */
export type ReplicaChange = Partial<
  Pick<ReplicaRecord, 'retention' | 'epoch' | 'machineName' | 'tenure' | 'offer' | 'adopted'>
>;

/** What changes, as the record is at that moment; undefined: nothing. */
export type ReplicaDecision = (record: ReplicaRecord) => ReplicaChange | undefined;
export type ReplicaUpdate = ReplicaChange | ReplicaDecision;

/** The same record if nothing changes. */
export function updated(record: ReplicaRecord, update: ReplicaUpdate): ReplicaRecord {
  const change = typeof update === 'function' ? update(record) : update;
  return change ? { ...record, ...change } : record;
}

/** The site that deltas of a replica are taken from. */
export function bringerOf({ sourceSiteId, viaSiteId }: ReplicaRecord): string {
  return viaSiteId ?? sourceSiteId;
}

const PointManifestSchema = Type.Object({
  signed: SignedStatement,
  /** When the receiver published the point, on its own clock. */
  publishedAtMs: Time,
  /** When the point was cut, on the receiver's clock: the sender's time corrected by the skew measured then. */
  cutAtHereMs: Time,
  skewMs: Type.Number(),
  receivedBytes: Type.Integer({ minimum: 0 }),
  /** Guest bytes that were not sent, because an older copy here had them; absent if there was none. */
  olderBytes: Type.Optional(Type.Integer({ minimum: 1 })),
  /** A person holds it; earlier versions know this word alone. */
  held: Type.Optional(Type.Boolean()),
  /**
   * While the seed is awaited. `awaited`: the layer is an empty stand-in, this point and all above it cannot be used before the
   * base has come by courier. `exported`: another seed, of this very point, may come as well.
   */
  seed: Type.Optional(Type.Union([Type.Literal('awaited'), Type.Literal('exported')])),
  hold: Type.Optional(
    Type.Object({
      reason: Type.String({ maxLength: 200 }),
      sinceMs: Time,
      /** By the wall clocks of both sites; absent: until it is released. */
      untilMs: Type.Optional(Time),
    }),
  ),
});
/** `points/<point>.json`: its rename is the publication of the point. */
export type PointManifest = Type.Static<typeof PointManifestSchema>;
export const POINT_MANIFEST = recordKind('point', 2, PointManifestSchema);
const POINT_MANIFEST_1 = recordKind('point', 1, PointManifestSchema);

/** A point that awaits its seed must not be taken for a whole one by a program that knows nothing of seeds. */
export function manifestKind({ seed }: PointManifest): typeof POINT_MANIFEST {
  return seed === undefined ? POINT_MANIFEST_1 : POINT_MANIFEST;
}

const IncomingSchema = Type.Object({
  /** The delta header as offered, `firstFrame` left at 0. */
  header: Type.Unknown(),
  createdAtMs: Time,
  skewMs: Type.Number(),
  /** Disks that the parent does not have: their layers are complete by themselves. */
  begins: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
});
/** `incoming/<session>/session.json`: a receive in progress. */
export const INCOMING_RECORD = recordKind('incoming', 2, IncomingSchema);
const INCOMING_RECORD_1 = recordKind('incoming', 1, IncomingSchema);

/** A program that lays every layer upon one of the parent must not go on with a delta that brings a new disk. */
export function incomingKind({ begins }: Type.Static<typeof IncomingSchema>): typeof INCOMING_RECORD {
  return begins === undefined ? INCOMING_RECORD_1 : INCOMING_RECORD;
}

/** `incoming/<session>/verified.json`: everything is durable and verified; only renames are left to do. */
export const VERIFIED_RECORD = recordKind('verified', 2, PointManifestSchema);
const VERIFIED_RECORD_1 = recordKind('verified', 1, PointManifestSchema);

export function verifiedKind({ seed }: PointManifest): typeof VERIFIED_RECORD {
  return seed === undefined ? VERIFIED_RECORD_1 : VERIFIED_RECORD;
}

const SeedIntentSchema = Type.Object({
  /** The point that the seed is; its layer in `seed/` is durable and proven. */
  pointId: Type.String(),
  /** Points below it, the oldest first: never usable, and gone when the base is there. */
  remove: Type.Array(Type.String()),
  diskIds: Type.Array(Type.String(), { minItems: 1 }),
});
/** `intents/seed.json`: the base of a replica is being put under its points. */
export type SeedIntent = Type.Static<typeof SeedIntentSchema>;
export const SEED_INTENT = recordKind('seed-intent', 1, SeedIntentSchema);

const MergeIntentSchema = Type.Object({
  kind: Type.Union([Type.Literal('middle'), Type.Literal('fold')]),
  /** Points that go, the oldest first; they follow each other. */
  remove: Type.Array(Type.String(), { minItems: 1 }),
  /** The point right above them, whose layer takes their content. */
  into: Type.String(),
  /** The point right below them; absent when the oldest goes. */
  below: Type.Optional(Type.String()),
  /** Disks of any of these points. */
  diskIds: Type.Array(Type.String(), { minItems: 1 }),
  /** By disk, where not every one of the points has it: those that do. */
  having: Type.Optional(Type.Record(Type.String(), Type.Array(Type.String()))),
});
/** `intents/merge.json`: a merge under way, written before its first act. */
export type MergeIntent = Type.Static<typeof MergeIntentSchema>;
export const MERGE_INTENT = recordKind('merge-intent', 2, MergeIntentSchema);
const MERGE_INTENT_1 = recordKind('merge-intent', 1, MergeIntentSchema);

/** A merge of points with different disks must not be ended by a program that takes them for the same. */
export function mergeKind({ having }: MergeIntent): typeof MERGE_INTENT {
  return having === undefined ? MERGE_INTENT_1 : MERGE_INTENT;
}

const ContentProofSchema = Type.Object({
  pointId: Type.String(),
  verifiedAtMs: Time,
  statementDigest: Type.String(),
  blocks: Type.Integer({ minimum: 0 }),
  bytes: Type.Integer({ minimum: 0 }),
});
/** `proofs/<point>/content.json`: the chain was read through QEMU and equals what was signed. */
export type ContentProof = Type.Static<typeof ContentProofSchema>;
export const CONTENT_PROOF = recordKind('content-proof', 1, ContentProofSchema);

const BranchSchema = Type.Object({
  branchId: Type.String(),
  /** What a person calls it; no two branches of a replica have one name. */
  name: Type.Optional(Type.String()),
  pointId: Type.String(),
  /** `prepared`: what others of the point start from, instead of from the point itself. Its machine has ended for good. */
  purpose: Type.Union([
    Type.Literal('test'),
    Type.Literal('failover'),
    Type.Literal('proof'),
    Type.Literal('prepared'),
  ]),
  /** The prepared branch whose layers lie between those of the point and its own. */
  base: Type.Optional(Type.String()),
  createdAtMs: Time,
  diskIds: Type.Array(Type.String(), { minItems: 1 }),
});
/** `branches/<branch>/branch.json`: a writable child of a point. */
export type BranchRecord = Type.Static<typeof BranchSchema>;
export const BRANCH_RECORD = recordKind('branch', 2, BranchSchema);
const BRANCH_RECORD_1 = recordKind('branch', 1, BranchSchema);

/** A program that knows nothing of prepared branches would boot one, or put a chain together without it. */
export function branchKind({ purpose, base }: BranchRecord): typeof BRANCH_RECORD {
  return purpose === 'prepared' || base !== undefined ? BRANCH_RECORD : BRANCH_RECORD_1;
}
