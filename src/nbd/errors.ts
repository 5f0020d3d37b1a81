import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const NBD_ERRORS = {
  NBD_UNREACHABLE: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Check that the NBD server runs and that its socket or port can be reached from here.',
  },
  NBD_DISCONNECTED: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'Look at the log of the NBD server or of QEMU; the work goes on over a new connection.',
  },
  NBD_TIMEOUT: {
    kind: 'timeout',
    retry: 'reconnect',
    remedy: 'The NBD server hangs or its storage is very slow: check the host that runs it.',
  },
  NBD_PROTOCOL: {
    kind: 'protocol',
    retry: 'never',
    remedy:
      'The server does not follow the NBD protocol: check what listens at that address, and its version.',
  },
  NBD_TLS_FAILED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Check certificates, their authority and the server name; unverified connections are not made.',
  },
  NBD_TLS_REQUIRED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'The server wants TLS: give the TLS options of this address.',
  },
  NBD_EXPORT_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Check the export name with `nbdinfo --list`; the export may already have been taken down.',
  },
  NBD_EXPORT_CHANGED: {
    kind: 'unavailable',
    retry: 'reconnect',
    remedy: 'The export differs between connections, for example after a resize: connect again.',
  },
  NBD_NEGOTIATION_REFUSED: {
    kind: 'refused',
    retry: 'never',
    remedy: "Read the server's reason in the message and change its configuration or the request.",
  },
  NBD_UNSUPPORTED: {
    kind: 'environment',
    retry: 'never',
    remedy: 'Use a server or an export that offers the named feature; `nbdinfo` shows what an export offers.',
  },
  NBD_CONTEXT_MISSING: {
    kind: 'environment',
    retry: 'never',
    remedy:
      'Export the disk with this metadata context: allocation depth or the named bitmap must be asked for when the export is added.',
  },
  NBD_REQUEST_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Ask for whole blocks within the size of the export.',
  },
  NBD_READ_ONLY: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Export the disk writable if it is meant to be written.',
  },
  NBD_REQUEST_FAILED: {
    kind: 'environment',
    retry: 'later',
    remedy: 'Check the storage behind the NBD server: it answered this request with the error shown.',
  },
  NBD_CLOSED: {
    kind: 'cancelled',
    retry: 'never',
    remedy: 'This connection was closed on purpose: open a new one.',
  },
} as const satisfies ErrorCatalogue;

export const nbdFailure = failuresOf(NBD_ERRORS);
