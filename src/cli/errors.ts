import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const CLI_ERRORS = {
  CLI_USAGE: {
    kind: 'input',
    retry: 'never',
    remedy: 'Look at the command with --help: it shows what it takes, with examples.',
  },
  CLI_VALUE_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy: 'Write the value in the form that the message shows.',
  },
  CLI_FILE_INVALID: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Correct the file: docs/operating.md shows the form that `warmsite vm add --from` takes, docs/plans.md that of a plan, docs/consistency.md that of a copy type.',
  },
  CLI_FILE_EXISTS: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Name another path, or move the file away: nothing that exists is overwritten.',
  },
  CLI_CONFIRMATION_MISSING: {
    kind: 'input',
    retry: 'never',
    remedy:
      'Give the confirming option that the message names, or run the command in a terminal to be asked.',
  },
  CLI_SITE_MISSING: {
    kind: 'missing',
    retry: 'never',
    remedy: 'Name the data directory with --data or WARMSITE_DATA, or create the site: `warmsite site init`.',
  },
  CLI_SITE_STOPPED: {
    kind: 'unavailable',
    retry: 'later',
    remedy: 'Start the site: `warmsite site serve`; its machines run on meanwhile, with or without it.',
  },
  CLI_NO_RIGHTS: {
    kind: 'unauthorized',
    retry: 'never',
    remedy: 'Run the command as the user that serves the site; its keys are readable by that user only.',
  },
  CLI_API_UNTRUSTED: {
    kind: 'refused',
    retry: 'never',
    remedy:
      'Something else than the site of this data directory answers at its address: find out what listens there (`ss -ltnp`). Nothing was sent to it.',
  },
  CLI_ANSWER_INVALID: {
    kind: 'protocol',
    retry: 'never',
    remedy: 'Use the command line of the version that serves the site; `warmsite --version` shows this one.',
  },
  CLI_ANSWER_LATE: {
    kind: 'timeout',
    retry: 'later',
    remedy: 'The site may still be doing it: look with `warmsite vm list` and `warmsite job list` first.',
  },
  CLI_WATCH_ENDED: {
    kind: 'cancelled',
    retry: 'never',
    remedy: 'The work goes on at the site: `warmsite job list` shows how far it is.',
  },
  CLI_BUG: {
    kind: 'environment',
    retry: 'never',
    remedy: 'This is an error in Warmsite: please report it with the lines above.',
  },
} as const satisfies ErrorCatalogue;

export const cliFailure = failuresOf(CLI_ERRORS);
