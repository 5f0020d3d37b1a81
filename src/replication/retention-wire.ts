import Type from 'typebox';
import { Value } from 'typebox/value';
import type { Json } from '../lib/canonical-json.ts';
import { oldRetentionOf, RetentionPolicy, retentionOfOld } from '../recovery-point/index.ts';
import { replicationFailure } from './errors.ts';

/**
 * Retention as it travels with an offer. A policy that version 1 has words for goes in those, so that older sites go on
 * understanding it; docs/protocol.md, «Calls of replication».
 */
const VERSION = 2;

export function retentionToWire(policy: RetentionPolicy): Json {
  return (oldRetentionOf(policy) ?? { version: VERSION, policy }) as unknown as Json;
}

/** Throws REPLICATION_RETENTION_UNKNOWN for a version that is newer than this program. */
export function retentionFromWire(wire: unknown): RetentionPolicy {
  const { version, policy } = Value.Check(Versioned, wire)
    ? wire
    : { version: 1, policy: retentionOfOld(wire) };
  if (version > VERSION) {
    throw replicationFailure(
      'REPLICATION_RETENTION_UNKNOWN',
      `the retention policy has version ${version}; known here: ${VERSION}`,
      { context: { version } },
    );
  }
  if (Value.Check(RetentionPolicy, policy)) return policy;
  throw replicationFailure('REPLICATION_REQUEST_INVALID', 'the retention policy of the offer is not valid');
}

const Versioned = Type.Object({ version: Type.Integer({ minimum: 2 }), policy: Type.Unknown() });

/** Whether a site that knows version 1 alone cannot read it. */
export function needsVersion2(policy: RetentionPolicy): boolean {
  return oldRetentionOf(policy) === undefined;
}

const PreviewedPoints = Type.Array(
  Type.Object({
    pointId: Type.String({ maxLength: 26 }),
    sequence: Type.Integer({ minimum: 1 }),
    copyType: Type.String({ maxLength: 32 }),
    /** On the clock of the recovery site. */
    cutAtMs: Type.Integer(),
    /** Empty: it would go. */
    keptFor: Type.Array(Type.String({ maxLength: 64 }), { maxItems: 64 }),
  }),
  { maxItems: 100_000 },
);
const Preview = Type.Object({ points: PreviewedPoints });

/** What a policy would do with the points that there are. */
export interface RetentionPreview {
  readonly retention: RetentionPolicy;
  readonly points: Type.Static<typeof PreviewedPoints>;
}

/** The answer to `replica.preview`; throws REPLICATION_REQUEST_INVALID for what is none. */
export function checkPreview(answer: Json, retention: RetentionPolicy): RetentionPreview {
  if (Value.Check(Preview, answer)) return { retention, points: answer.points };
  throw replicationFailure('REPLICATION_REQUEST_INVALID', 'the preview of the other site is not valid');
}
