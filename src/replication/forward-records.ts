import Type from 'typebox';
import { recordKind } from '../lib/records.ts';
import { TargetPolicySchema, TargetSchema } from './records.ts';

const ForwardPolicySchema = Type.Object({
  ...TargetPolicySchema.properties,
  /** Points of these types alone; of all if absent. */
  copyTypes: Type.Optional(Type.Array(Type.String(), { minItems: 1, maxItems: 64 })),
});
/** What another site gets of a replica, and how. */
export type ForwardPolicy = Type.Static<typeof ForwardPolicySchema>;

const ForwardSchema = Type.Object({
  policy: ForwardPolicySchema,
  /** As of any target; the ordinals are the sequence numbers of the points. */
  progress: TargetSchema,
});
/** `forwards/<site>.json` of a replica: what that site gets, and how far it is. */
export type ForwardRecord = Type.Static<typeof ForwardSchema>;
export const FORWARD_RECORD = recordKind('forward', 1, ForwardSchema);
