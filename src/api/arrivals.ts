import Type from 'typebox';
import { CopyTypeName } from './common.ts';
import { PrepareRequest, TestFailoverRequest } from './failovers.ts';

const strict = { additionalProperties: false };
const { probes } = TestFailoverRequest.properties;

/** What a recovery site does by itself with each point of a machine that arrives there, beside drilling it. */
export const ArrivalRule = Type.Object(
  {
    /** With points of these types alone; with all if absent. */
    copyTypes: Type.Optional(Type.Array(CopyTypeName, { minItems: 1, maxItems: 32 })),
    /** It is prepared; what was prepared of older points by this rule is removed then. */
    work: Type.Object(
      {
        kind: Type.Literal('prepare'),
        programs: PrepareRequest.properties.programs,
        probes,
        graceMs: PrepareRequest.properties.graceMs,
      },
      strict,
    ),
  },
  strict,
);
export type ArrivalRule = Type.Static<typeof ArrivalRule>;

export const ArrivalRuleView = Type.Object({ rule: Type.Union([ArrivalRule, Type.Null()]) });
export type ArrivalRuleView = Type.Static<typeof ArrivalRuleView>;
