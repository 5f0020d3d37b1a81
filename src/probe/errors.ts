import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const PROBE_ERRORS = {
  FAILOVER_PROBE_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Correct the named field of the probe.',
  },
} as const satisfies ErrorCatalogue;

export const probeFailure = failuresOf(PROBE_ERRORS);
