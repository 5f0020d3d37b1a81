import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const PEER_ERRORS = {
  PEER_NAME_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Choose a name of 1 to 64 characters without control characters.',
  },
  PEER_IDENTITY_DAMAGED: {
    kind: 'corrupt',
    retry: 'never',
    remedy: 'Import the recovery kit of this site; keep the damaged file for analysis.',
  },
  PEER_KIT_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Use the whole text of the recovery kit, unchanged, or another copy of it.',
  },
  PEER_TOKEN_MALFORMED: {
    kind: 'input',
    retry: 'never',
    remedy: 'Copy the whole pairing token again, from the first to the last character.',
  },
  PEER_TOKEN_LIFETIME: {
    kind: 'input',
    retry: 'never',
    remedy: 'Ask for a lifetime of more than nothing and at most 15 minutes.',
  },
  PEER_TOKEN_WRONG: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Issue a new pairing token at the other site and use it here.',
  },
  PEER_TOKEN_EXPIRED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Issue a new pairing token at the other site and use it within its lifetime.',
  },
  PEER_TOKEN_USED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'If you did not use this token before, somebody else did: look at the list of peers of the other site and revoke what you do not know. Then issue a new token.',
  },
  PEER_SELF: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Use the token at another site than the one that issued it.',
  },
  PEER_KEY_CHANGED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Find out whether that site was copied or is an impostor. If its keys were renewed on purpose, revoke the old pairing first, then pair again.',
  },
  PEER_INTRODUCTION_INVALID: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'Check that both sites run a released Warmsite and that nothing changes traffic between them.',
  },
  PEER_AUTHORITY_WRONG: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Something else than the paired site answers at this address: check the address, then look for a man in the middle.',
  },
  PEER_CERTIFICATE_MISSING: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Connect from a paired site; this port is not for browsers.',
  },
  PEER_CERTIFICATE_EXPIRED: {
    kind: 'refused',
    retry: 'later',
    remedy: 'Compare the clocks of both sites; a site renews its own certificate when its clock is right.',
  },
  PEER_UNKNOWN: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Pair the two sites: issue a token at one and use it at the other.',
  },
  PEER_REVOKED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Pair the two sites again if the revocation was not meant.',
  },
  PEER_UNREACHABLE: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Check that the other site runs and that its address and port are open from here.',
  },
  PEER_CONNECTION_LOST: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'Nothing to do: the work resumes over a new connection. If it recurs, look at the network.',
  },
  PEER_TIMEOUT: {
    kind: 'timeout',
    retry: 'reconnect',
    remedy: 'Look at the load of the other site and at the network between.',
  },
  PEER_STALLED: {
    kind: 'timeout',
    retry: 'reconnect',
    remedy: 'Nothing to do: the work resumes over a new connection. If it recurs, look at the network.',
  },
  PEER_TLS_FAILED: {
    kind: 'protocol',
    retry: 'later',
    remedy:
      'Check that the address is the site port of a Warmsite and that nothing changes traffic on the way.',
  },
  PEER_PROTOCOL_NEWER: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Upgrade the site that answered, then try again; nothing was changed.',
  },
  PEER_PROTOCOL_INVALID: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'Check that both sites run a released Warmsite and that no proxy stands between them.',
  },
  PEER_CALL_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Upgrade the site that answered: it does not know what was asked of it.',
  },
  PEER_BODY_TOO_LARGE: {
    kind: 'input',
    retry: 'never',
    remedy: 'Ask for less at once.',
  },
  PEER_INTERNAL: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Read the log of the site that answered: the error is described there.',
  },
  PEER_LISTEN_FAILED: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Choose a free address and port of this host for the site port.',
  },
  PEER_CLOSED: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Wait until the site runs again.',
  },
} as const satisfies ErrorCatalogue;

export const peerFailure = failuresOf(PEER_ERRORS);
