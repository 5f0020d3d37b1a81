import { createHash } from 'node:crypto';
import Type from 'typebox';
import { Value } from 'typebox/value';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { ID_PATTERN } from '../lib/random.ts';
import { ASSERTIONS_MAX, Assertion } from './copy-type.ts';
import { pointFailure } from './errors.ts';
import { GroupCut } from './group-cut.ts';
import { TpmBytes, TpmSaid } from './tpm-state.ts';

const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' });
const Id = Type.String({ pattern: ID_PATTERN });
const WallTime = Type.Integer({ minimum: 0, maximum: 2 ** 52 });
const ConsistencyName = Type.Union([
  Type.Literal('crash'),
  Type.Literal('file-system'),
  Type.Literal('application'),
]);

/**
 * What the protected site says of a point, and signs: which machine, which instant, what came before, and by the
 * roots of the digest trees the content of every disk to the byte. See docs/format.md, «Point statement».
 */
export const PointStatement = Type.Object({
  version: Type.Literal(1),
  machineId: Id,
  machineName: Type.String({ maxLength: 64 }),
  sourceSiteId: Id,
  pointId: Id,
  /** Counts the points of a machine without gaps, from 1. Order is by this and never by time. */
  sequence: Type.Integer({ minimum: 1, maximum: 2 ** 52 }),
  /** Who may write: raised by every failover. */
  epoch: Type.Integer({ minimum: 1, maximum: 2 ** 52 }),
  parent: Type.Union([Type.Object({ pointId: Id, statementDigest: Hash }), Type.Null()]),
  copyType: Type.String({ minLength: 1, maxLength: 32 }),
  /** What the type strives for; absent for types that every machine has. */
  aim: Type.Optional(ConsistencyName),
  /** What is claimed to hold in a guest that is booted from this point. */
  assertions: Type.Optional(Type.Array(Assertion, { maxItems: ASSERTIONS_MAX })),
  /** What was reached, from evidence; less than the type strives for when `degraded` says why. */
  consistency: ConsistencyName,
  degraded: Type.Optional(Type.String({ maxLength: 1000 })),
  /** Wall clock of the protected site. For people; see the receiver's own time in the manifest. */
  cutAtMs: WallTime,
  pauseMs: Type.Number({ minimum: 0 }),
  frozenMs: Type.Optional(Type.Number({ minimum: 0 })),
  digest: Type.Literal('sha256'),
  blockBytes: Type.Integer({ minimum: 4096, maximum: 16 * 1024 * 1024 }),
  disks: Type.Array(
    Type.Object({
      diskId: Type.String({ minLength: 1, maxLength: 24, pattern: '^[a-z0-9][a-z0-9-]*$' }),
      sizeBytes: Type.Integer({ minimum: 512, maximum: 2 ** 50 }),
      root: Hash,
      /** Bytes of guest-visible ranges that changed since the parent, as the engine tracks them. */
      changedBytes: Type.Integer({ minimum: 0 }),
    }),
    { minItems: 1, maxItems: 64 },
  ),
  /** Cuts between the parent and this one whose own state could not be kept, with the reason. */
  missed: Type.Array(
    Type.Object({
      pointId: Id,
      copyType: Type.String(),
      cutAtMs: WallTime,
      reason: Type.String({ maxLength: 200 }),
    }),
    { maxItems: 100_000 },
  ),
  /** The point is one of several, cut at one instant; absent for one of its own. */
  group: Type.Optional(GroupCut),
  /** What its TPM held; absent where it has none, or where that could not be learned. */
  tpm: Type.Optional(TpmSaid),
  /** The machine in platform-neutral words (`MachineConfiguration`). */
  configuration: Type.Unknown(),
});

export type PointStatement = Type.Static<typeof PointStatement>;

export const SignedStatement = Type.Object({
  statement: PointStatement,
  /** The key that signed: the first 16 hexadecimal digits of the SHA-256 of the public key. */
  keyId: Type.String({ maxLength: 64 }),
  /** Ed25519 over `statementBytes`, base64. */
  signature: Type.String({ maxLength: 200 }),
  /** What the TPM held, as `statement.tpm` says; goes where the point goes, and nowhere else. */
  tpmState: Type.Optional(TpmBytes),
});

export type SignedStatement = Type.Static<typeof SignedStatement>;

/** The bytes that are signed and hashed: a domain string and the canonical JSON. */
export function statementBytes(statement: PointStatement): Buffer {
  return Buffer.from(`warmsite point statement v1\n${canonicalJson(statement as unknown as Json)}`);
}

/** What a child names its parent by; chains the statements of a machine to one history. */
export function statementDigest(statement: PointStatement): string {
  return createHash('sha256').update(statementBytes(statement)).digest('hex');
}

/** Throws POINT_STATEMENT_INVALID for anything that is not a statement; says nothing about the signature. */
export function checkSignedStatement(value: unknown, source: string): SignedStatement {
  if (!Value.Check(SignedStatement, value)) {
    const first = Value.Errors(SignedStatement, value)[0];
    throw pointFailure(
      'POINT_STATEMENT_INVALID',
      `${source}: ${first?.instancePath ?? ''} ${first?.message ?? ''}`,
      {
        context: { source },
      },
    );
  }
  return value;
}

/**
 * What the TPM of the machine held, which is what was signed; undefined where nothing was. Throws POINT_STATEMENT_INVALID where it is
 * something else, or is not there.
 */
export function tpmStateOf({ statement, tpmState }: SignedStatement): Buffer | undefined {
  const { tpm, pointId } = statement;
  if (tpm === undefined && tpmState === undefined) return undefined;
  const bytes = Buffer.from(tpmState ?? '', 'base64');
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (tpm?.sha256 === sha256 && tpm.sizeBytes === bytes.length) return bytes;
  const said = `the state of the TPM of point ${pointId} is not what was signed`;
  throw pointFailure('POINT_STATEMENT_INVALID', said, { context: { pointId } });
}
