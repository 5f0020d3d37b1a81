import type Type from 'typebox';
import { Value } from 'typebox/value';
import { serverFailure } from './errors.ts';

/** `value`, if it has the shape; otherwise API_REQUEST_INVALID naming the first field that is wrong. */
export function checked<S extends Type.TSchema>(schema: S, value: unknown, part: string): Type.Static<S> {
  if (Value.Check(schema, value)) return value;
  const [first] = Value.Errors(schema, value);
  const field = [part, ...(first?.instancePath ?? '').split('/').filter((name) => name !== '')].join('.');
  throw serverFailure('API_REQUEST_INVALID', `${field} ${first?.message ?? 'is not valid'}`, {
    context: { field },
  });
}
