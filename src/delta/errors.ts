import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const DELTA_ERRORS = {
  DELTA_NOT_A_DELTA: {
    kind: 'input',
    retry: 'never',
    remedy: 'Give a delta stream made by Warmsite; these bytes do not begin like one.',
  },
  DELTA_NEWER: {
    kind: 'refused',
    retry: 'never',
    remedy: 'This was written by a newer Warmsite: upgrade this installation; nothing was changed.',
  },
  DELTA_TRUNCATED: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'The stream broke off: resume it from the last durable frame; a file must be copied again.',
  },
  DELTA_CORRUPT: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'The bytes were damaged on their way: check the medium or the link, then send the point again from its start.',
  },
  DELTA_INVALID: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'The sender broke a rule of the format: compare the versions of both sites and report it.',
  },
  DELTA_LIMIT: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'The stream exceeds a limit of the format (docs/format.md, «Limits») and was refused unread.',
  },
  DELTA_RESUME_MISMATCH: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Ask the receiver how far it came and send from there.',
  },
  DELTA_LEAVES_CORRUPT: {
    kind: 'corrupt',
    retry: 'never',
    remedy: 'Keep the damaged file for analysis and compute the leaves again from the layer.',
  },
  DELTA_LEAVES_LIMIT: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Split the disk: a leaves file holds at most 4 GiB (docs/format.md, «Limits»).',
  },
} as const satisfies ErrorCatalogue;

export const deltaFailure = failuresOf(DELTA_ERRORS);
