import { RE2JS, RE2JSException } from 're2js';
import { probeFailure } from './errors.ts';

/**
 * What a probe wants to be said, held against what a guest says. It is matched in time linear in the text, whatever the guest has chosen
 * to say: a backtracking engine could be kept busy for ever by a line that fits a careless pattern, and with it the site. The language is
 * that of RE2: no look-around and no references back. docs/adr/0024.
 */
export interface Pattern {
  /** Whether it is found in the text; `^` and `$` stand for the beginning and the end of each line. */
  test(text: string): boolean;
}

/** Throws FAILOVER_PROBE_INVALID. */
export function patternOf(pattern: string): Pattern {
  try {
    return RE2JS.compile(pattern, RE2JS.MULTILINE);
  } catch (error) {
    if (!(error instanceof RE2JSException)) throw error;
    const said = `«${pattern}» is no regular expression that can be used in a probe: ${error.message}`;
    throw probeFailure('FAILOVER_PROBE_INVALID', said, { cause: error });
  }
}
