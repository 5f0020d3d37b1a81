import Type from 'typebox';
import { AbsolutePath, Reference } from './common.ts';

export const RenameRequest = Type.Object({ name: Reference }, { additionalProperties: false });

/** Where a machine is from now on; what is not named is where it was. */
export const MoveRequest = Type.Object(
  {
    qmpPath: Type.Optional(AbsolutePath),
    /** null: the guest has none any more. */
    agentPath: Type.Optional(Type.Union([AbsolutePath, Type.Null()])),
    disks: Type.Optional(
      Type.Array(
        Type.Object(
          {
            diskId: Type.String({ minLength: 1, maxLength: 24 }),
            path: AbsolutePath,
            format: Type.Union([Type.Literal('qcow2'), Type.Literal('raw')]),
          },
          { additionalProperties: false },
        ),
        { minItems: 1, maxItems: 64 },
      ),
    ),
  },
  { additionalProperties: false, minProperties: 1 },
);
export type MoveRequest = Type.Static<typeof MoveRequest>;
