import type Type from 'typebox';
import { Value } from 'typebox/value';
import { serverFailure } from './errors.ts';

/**
 * `value`, if it has the shape; otherwise API_REQUEST_INVALID naming the field that is wrong: the innermost one, for
 * where one of several shapes will do, that is in the one that was meant.
 */
export function checked<S extends Type.TSchema>(schema: S, value: unknown, part: string): Type.Static<S> {
  if (Value.Check(schema, value)) return value;
  const errors = Value.Errors(schema, value).map(({ instancePath, message }) => ({
    path: instancePath.split('/').filter((name) => name !== ''),
    message,
  }));
  const [wrong] = errors.sort((a, b) => b.path.length - a.path.length);
  const field = [part, ...(wrong?.path ?? [])].join('.');
  throw serverFailure('API_REQUEST_INVALID', `${field} ${wrong?.message ?? 'is not valid'}`, {
    context: { field },
  });
}
