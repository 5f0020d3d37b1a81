import { type ErrorCatalogue, failuresOf } from '../lib/errors.ts';

export const REPORT_ERRORS = {
  REPORT_NO_BROWSER: {
    kind: 'environment',
    retry: 'never',
    remedy:
      'Install Chromium (Debian: `chromium-headless-shell` or `chromium`), or name a browser of its kind with --browser or WARMSITE_BROWSER. JSON and HTML need none, and any browser prints the HTML.',
  },
  REPORT_NOT_PRINTED: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'The message holds what the browser said. Export HTML instead and print that with any browser; it is the same page.',
  },
  REPORT_NOT_GENUINE: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'Do not rely on this report: it is not what the site signed. Get it again from the site (`warmsite report export`) or from a backup of its `reports` directory.',
  },
  ADOPTION_FAILED: {
    kind: 'refused',
    retry: 'never',
    remedy: 'Look the code up in docs/errors.md: nothing was changed, and the branch is what it was.',
  },
  REPORT_UNKNOWN: {
    kind: 'missing',
    retry: 'never',
    remedy: 'List the reports with `warmsite report list`.',
  },
  REPORT_DAMAGED: {
    kind: 'corrupt',
    retry: 'never',
    remedy:
      'The file was changed after it was signed: look who can write the data directory, and get the report from a copy of it. No other report is touched by that.',
  },
  REPORT_NOT_WRITTEN: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Make room on the disk of the data directory, or give the site the right to write there: the reports are written within a minute then, and when the site starts.',
  },
  REPORT_NOT_REMOVED: {
    kind: 'environment',
    retry: 'later',
    remedy:
      'Give the site the right to write in the directory `reports` of its data directory. What is too old is removed within an hour then; a removal that was begun is ended when the site starts.',
  },
} as const satisfies ErrorCatalogue;

export const reportFailure = failuresOf(REPORT_ERRORS);
