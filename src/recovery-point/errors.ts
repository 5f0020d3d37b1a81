import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const POINT_ERRORS = {
  POINT_STATEMENT_INVALID: {
    kind: 'corrupt',
    retry: 'never',
    remedy: 'The point is not used. Keep the file and run `warmsite point verify` on its neighbours.',
  },
  POINT_NOT_FOUND: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the points there are with `warmsite point list`.',
  },
  POINT_NONE_SUITABLE: {
    kind: 'missing',
    retry: 'never',
    remedy: 'No point fulfils the wish: ask for another type, or name a point yourself.',
  },
  COPY_TYPE_UNKNOWN: {
    kind: 'input',
    retry: 'never',
    remedy: 'Use `crash` or `app`.',
  },
} as const satisfies ErrorCatalogue;

export const pointFailure = failuresOf(POINT_ERRORS);
