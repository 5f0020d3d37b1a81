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
  POLICY_TIME_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Write minute, hour, day of month, month and weekday, such as `0 2 * * *` for 02:00 of every day; docs/policies.md, «Fixed times».',
  },
  POLICY_ZONE_UNKNOWN: {
    kind: 'input',
    retry: 'never',
    remedy: 'Name a time zone of the IANA database, such as `Europe/Berlin`, or `UTC`.',
  },
  POLICY_NEVER: {
    kind: 'input',
    retry: 'never',
    remedy:
      'No copy would ever be made: change the time, or leave some hours of the week without a blackout.',
  },
  POLICY_CONTRADICTS: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Say it once: one schedule for each copy type, one trigger for each name, a minimum below its maximum.',
  },
  POLICY_KEEPS_NOTHING: {
    kind: 'input',
    retry: 'never',
    remedy: 'Keep at least one point of each type that is made on schedule, or some hours, days or weeks.',
  },
  POLICY_TOO_DEEP: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Keep fewer points: fewer of a type, or days and weeks in place of many hours.',
  },
  COPY_TYPE_TOO_LARGE: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Put long scripts into files of the guest and name them: a copy type has at most 65,536 characters as JSON, because its assertions travel with every point.',
  },
  COPY_TYPE_UNKNOWN: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Use `crash`, `app` or a type that `warmsite vm copy-type list` shows. Define a type before a schedule or retention names it; take it out of both before it is removed.',
  },
} as const satisfies ErrorCatalogue;

export const pointFailure = failuresOf(POINT_ERRORS);
