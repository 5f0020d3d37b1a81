import Type from 'typebox';
import { CopyTypeName, Id, WallTime } from './common.ts';

export const CreateTriggerRequest = Type.Object(
  {
    copyType: CopyTypeName,
    /** For people: who was given the token. */
    note: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  },
  { additionalProperties: false },
);
export type CreateTriggerRequest = Type.Static<typeof CreateTriggerRequest>;

/** A right to have copies of one type made of one machine; whoever holds its token has it. */
export const TriggerView = Type.Object({
  triggerId: Id,
  machineId: Id,
  /** Absent while the machine is not to be found. */
  machine: Type.Optional(Type.String()),
  copyType: Type.String(),
  note: Type.Optional(Type.String()),
  createdAtMs: WallTime,
  /** Absent if no copy has been asked for with it yet. */
  lastUsedAtMs: Type.Optional(WallTime),
});
export type TriggerView = Type.Static<typeof TriggerView>;

/** The token is told here and never again; the site keeps its digest alone. */
export const IssuedTrigger = Type.Object({ trigger: TriggerView, token: Type.String() });
