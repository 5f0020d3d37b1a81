import Type from 'typebox';
import { Value } from 'typebox/value';
import type { Json } from '../../lib/canonical-json.ts';
import { ID_PATTERN } from '../../lib/random.ts';
import type { PeerClient } from '../../peer/index.ts';
import { Claim, type LeaseAsk, type LeaseTerms } from '../../recovery-point/index.ts';
import { controlFailure } from '../errors.ts';

/** What crosses between sites of leases and votes: docs/protocol.md. */

const Id = Type.String({ pattern: ID_PATTERN });

/** So long a peer may take to answer a question about a lease. */
export const CALL_LIMIT_MS = 5_000;
/** No question is under way for so long. */
export const LATE_MS_MAX = 600_000;

export const AskBody = Type.Object({
  machineId: Id,
  machineName: Type.String({ maxLength: 256 }),
  kind: Type.Union([Type.Literal('renew'), Type.Literal('vote'), Type.Literal('hold')]),
  claim: Claim,
  over: Type.Optional(Claim),
  leaseMs: Type.Integer({ minimum: 1_000, maximum: 600_000 }),
  siteIds: Type.Array(Id, { minItems: 2, maxItems: 2 }),
  witnessSiteId: Id,
  begunAtMs: Type.Optional(Type.Integer()),
});
export type AskBody = Type.Static<typeof AskBody>;

export const ClaimBody = Type.Object({ machineId: Id, claim: Claim });
export type ClaimBody = Type.Static<typeof ClaimBody>;

/** `begunAtMs`: which leases have ended. */
export const EndBody = Type.Object({ ...ClaimBody.properties, begunAtMs: Type.Optional(Type.Integer()) });
export type EndBody = Type.Static<typeof EndBody>;

/**
 * Whether a voter has forgotten a machine's leases, and else whose claim counts there. `isHeld` false: that stands by a vote of which
 * nobody has said that it is used, and may be let go.
 */
export const EndAnswer = Type.Union([
  Type.Object({ ended: Type.Literal(true) }),
  Type.Object({ ended: Type.Literal(false), entitled: Claim, isHeld: Type.Optional(Type.Boolean()) }),
]);

const WireAnswer = Type.Union([
  Type.Object({ granted: Type.Literal(true) }),
  Type.Object({
    granted: Type.Literal(false),
    /** `sought`: the site that is asked wants the right itself at this moment. */
    why: Type.Union([
      Type.Literal('superseded'),
      Type.Literal('lent'),
      Type.Literal('spent'),
      Type.Literal('sought'),
    ]),
    entitled: Claim,
    seen: Claim,
    isHeld: Type.Boolean(),
    /** After this time another answer may be had. */
    waitMs: Type.Integer({ minimum: 0 }),
  }),
]);
export type WireAnswer = Readonly<Type.Static<typeof WireAnswer>>;

/** The voters of a machine, and how long it is lent for. */
export interface LeaseParties {
  readonly machineId: string;
  readonly machineName: string;
  readonly leaseMs: number;
  /** The two sites that may run the machine, in the order of their ids. */
  readonly siteIds: string[];
  readonly witnessSiteId: string;
  readonly begunAtMs?: number | undefined;
}

/** Of a machine at home at `siteId`, by its terms. */
export function partiesOf(
  { machineId, name }: { readonly machineId: string; readonly name: string },
  { leaseMs, witnessSiteId, recoverySiteId, begunAtMs }: LeaseTerms,
  siteId: string,
): LeaseParties {
  const siteIds = [siteId, recoverySiteId].sort();
  return { machineId, machineName: name, leaseMs, witnessSiteId, siteIds, begunAtMs };
}

/** Asks a voter; by `lease.would` what it would answer, which changes nothing. Throws what a call to a peer throws. */
export async function askVoter(
  client: Pick<PeerClient, 'call'>,
  { machineId, machineName, leaseMs, siteIds, witnessSiteId, begunAtMs }: LeaseParties,
  ask: LeaseAsk,
  o: { readonly timeoutMs: number; readonly signal?: AbortSignal; readonly call?: 'lease.would' },
): Promise<WireAnswer> {
  const { kind, claim } = ask;
  const { call = 'lease.ask', ...limits } = o;
  const body = {
    ...{ machineId, machineName, leaseMs, witnessSiteId, kind },
    siteIds: [...siteIds],
    claim: { ...claim },
    ...(begunAtMs === undefined || kind !== 'renew' ? {} : { begunAtMs }),
    ...(ask.kind === 'vote' ? { over: { ...ask.over } } : {}),
  };
  return checkedLease(WireAnswer, await client.call(call, body, limits));
}

export function checkedLease<S extends Type.TSchema>(schema: S, body: Json): Type.Static<S> {
  if (Value.Check(schema, body)) return body;
  throw controlFailure(
    'LEASE_REQUEST_INVALID',
    'what a peer says of a lease does not have the form agreed on',
  );
}
