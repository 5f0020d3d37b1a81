import Type from 'typebox';
import { Value } from 'typebox/value';
import { PlanDocument } from '../../api/index.ts';
import type { Json } from '../../lib/canonical-json.ts';
import type { HeldPlan, PlanVersion } from '../../plan/index.ts';
import { controlFailure } from '../errors.ts';

/** A version of a plan as it is stored and as it crosses between sites: docs/format.md, docs/protocol.md. */
export const VersionShape = Type.Object({
  counter: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER - 1 }),
  digest: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  former: Type.Array(Type.String({ pattern: '^[0-9]{1,16}-[0-9a-f]{64}$' }), { maxItems: 64 }),
  storedAtMs: Type.Number({ minimum: 0 }),
  /** Absent: it was removed. */
  document: Type.Optional(PlanDocument),
});

const ToldPlan = Type.Object({
  plan: Type.String({ pattern: '^[a-z][a-z0-9-]{0,31}$' }),
  ...VersionShape.properties,
});
type ToldPlan = PlanVersion & Pick<HeldPlan, 'plan'>;

/** What the one who is told answers: how it stands there, with its own version where the teller has not got it. */
const ToldAnswer = Type.Object({
  outcome: Type.Union([
    Type.Literal('taken'),
    Type.Literal('same'),
    Type.Literal('older'),
    Type.Literal('conflict'),
  ]),
  own: Type.Optional(ToldPlan),
});
export type ToldAnswer = Type.Static<typeof ToldAnswer>;

export function toldOf({ conflict: _ours, ...held }: HeldPlan): ToldPlan {
  return held;
}

/** Throws PLAN_INVALID: this version does not understand the plan, or it is none. */
export function checkedPlan(body: Json): ToldPlan {
  return checked(ToldPlan, body);
}

/** Throws PLAN_INVALID. */
export function checkedAnswer(body: Json): ToldAnswer {
  return checked(ToldAnswer, body);
}

function checked<S extends Type.TSchema>(schema: S, body: Json): Type.Static<S> {
  if (Value.Check(schema, body)) return body;
  const [first] = Value.Errors(schema, body);
  const said = `what the other site says of a plan is not understood here: ${first?.instancePath} ${first?.message}`;
  throw controlFailure('PLAN_INVALID', said);
}
