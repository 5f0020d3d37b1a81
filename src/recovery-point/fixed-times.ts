import { Cron } from 'croner';
import { messageOf } from '../lib/errors.ts';
import { pointFailure } from './errors.ts';

/** Minute, hour, day of the month, month, weekday: no seconds, no nicknames, no single dates. */
const FIVE_FIELDS = /^[\d*,/\-A-Za-z#?+]+( [\d*,/\-A-Za-z#?+]+){4}$/;

/**
 * The times of a cron expression in a time zone. A time of day (one minute of one hour) comes once a day also when the clocks
 * change: just after the gap, or at the first of the two. Lists, ranges and steps follow the clock on the wall: what it leaves
 * out is left out, what it shows twice comes twice. docs/policies.md, «Fixed times».
 */
export class FixedTimes {
  readonly #cron: Cron;
  /** Between `afterMs` and `nextMs` there is no time: the answer is the same until then. */
  #known: { readonly afterMs: number; readonly nextMs: number } | undefined;

  private constructor(cron: Cron) {
    this.#cron = cron;
  }

  /** Throws POLICY_TIME_INVALID for what is no such expression, also in a zone that does not exist. */
  static parse(expression: string, zone: string): FixedTimes {
    const said = `«${expression}» (${zone}) is no cron expression of five fields`;
    const context = { cron: expression, zone };
    if (!FIVE_FIELDS.test(expression)) throw pointFailure('POLICY_TIME_INVALID', said, { context });
    try {
      const cron = new Cron(expression, { mode: '5-part', timezone: zone, paused: true });
      cron.nextRun(new Date(0));
      return new FixedTimes(cron);
    } catch (error) {
      throw pointFailure('POLICY_TIME_INVALID', `${said}: ${messageOf(error)}`, { context, cause: error });
    }
  }

  /** The first time after `afterMs`; undefined if there is none any more, as for 30 February. */
  next(afterMs: number): number | undefined {
    const known = this.#known;
    if (known && known.afterMs <= afterMs && afterMs < known.nextMs) return known.nextMs;
    const nextMs = this.#cron.nextRun(new Date(afterMs))?.getTime();
    if (nextMs !== undefined) this.#known = { afterMs, nextMs };
    return nextMs;
  }

  /** The last time after `afterMs` and not after `untilMs`. */
  latest(afterMs: number, untilMs: number): number | undefined {
    const first = this.next(afterMs);
    if (first === undefined || first > untilMs) return undefined;
    // Asked for what lies before an instant, croner leaves out the second that the instant is in.
    const latest = this.#cron.previousRuns(1, new Date(untilMs + 1000))[0]?.getTime();
    return latest === undefined || latest < first ? first : latest;
  }
}
