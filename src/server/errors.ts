import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const SERVER_ERRORS = {
  API_UNAUTHORIZED: {
    kind: 'unauthorized',
    retry: 'never',
    remedy:
      'Send the operator token of this site: the file keys/operator.token in its data directory. The token of a trigger is good for `POST /v1/triggers/<its id>` alone, until it is revoked.',
  },
  API_TOO_MANY_ATTEMPTS: {
    kind: 'unauthorized',
    retry: 'later',
    remedy: 'Wait a minute, then send a token that is good.',
  },
  API_REQUEST_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Correct the named field; the schemas of all requests stand in src/api.',
  },
  API_ROUTE_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Check method and path; a client that is newer than the site may know more routes than it does.',
  },
  API_LISTEN_FAILED: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Choose a free address and port of this host for the API, in site.json.',
  },
} as const satisfies ErrorCatalogue;

export const serverFailure = failuresOf(SERVER_ERRORS);
