import Type from 'typebox';
import { ID_PATTERN } from '../lib/random.ts';

/** The shapes that several answers share. Times are milliseconds since the Unix epoch on the answering site's clock. */

export const Id = Type.String({ pattern: ID_PATTERN });
/** What a person may call a machine or a peer by: its name or its id. */
export const Reference = Type.String({ minLength: 1, maxLength: 64 });
export const WallTime = Type.Integer({ minimum: 0, maximum: 2 ** 52 });
export const AbsolutePath = Type.String({ minLength: 2, maxLength: 4096, pattern: '^/[^\\0]*$' });
export const Bytes = Type.Integer({ minimum: 0, maximum: 2 ** 52 });
export const Count = Type.Integer({ minimum: 0 });
/** `crash`, `app`, or what a machine's own type is called. */
export const CopyTypeName = Type.String({ pattern: '^[a-z][a-z0-9-]{0,31}$' });
export const ConsistencyName = Type.Union([
  Type.Literal('crash'),
  Type.Literal('file-system'),
  Type.Literal('application'),
]);

/** A failure as it crosses the border; `lib/errors.ts`, `FailureRecord`. */
export const FailureShape = Type.Object({
  code: Type.String(),
  kind: Type.Union([
    Type.Literal('input'),
    Type.Literal('unauthorized'),
    Type.Literal('missing'),
    Type.Literal('refused'),
    Type.Literal('unavailable'),
    Type.Literal('timeout'),
    Type.Literal('corrupt'),
    Type.Literal('environment'),
    Type.Literal('cancelled'),
    Type.Literal('protocol'),
  ]),
  retry: Type.Union([Type.Literal('never'), Type.Literal('later'), Type.Literal('reconnect')]),
  message: Type.String(),
  hint: Type.String(),
  context: Type.Record(
    Type.String(),
    Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()]),
  ),
});

/** The body of every answer that is not a success. */
export const ErrorAnswer = Type.Object({ error: FailureShape });
export type ErrorAnswer = Type.Static<typeof ErrorAnswer>;

export const Address = Type.Object({ host: Type.String(), port: Type.Integer() });

/** The answer of acts that have nothing to tell. */
export const Done = Type.Object({ done: Type.Literal(true) });
