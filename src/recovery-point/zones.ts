import { pointFailure } from './errors.ts';

/** Every change of offset since 1970 that the zone database knows in whole minutes falls on a quarter of an hour of UTC. */
const QUARTER_MS = 15 * 60_000;
const DAY_MS = 86_400_000;
/** So many quarters of an hour are remembered of a zone: more than a year. */
const REMEMBERED_MAX = 50_000;

/**
 * Local time in the zones of the IANA database, as the runtime knows it. The offsets are asked for once for each quarter of
 * an hour and remembered: one object serves all machines of a site.
 */
export class Zones {
  readonly #formats = new Map<string, Intl.DateTimeFormat>();
  readonly #offsets = new Map<string, Map<number, number>>();

  /** Throws POLICY_ZONE_UNKNOWN. */
  check(zone: string): void {
    this.#format(zone);
  }

  /** The local time as milliseconds since 1970 in which every day has 24 hours; falls back where the clocks are put back. */
  localMs(zone: string, atMs: number): number {
    const quarter = Math.floor(atMs / QUARTER_MS);
    let known = this.#offsets.get(zone);
    if (!known || known.size > REMEMBERED_MAX) {
      known = new Map();
      this.#offsets.set(zone, known);
    }
    let offsetMs = known.get(quarter);
    if (offsetMs === undefined) {
      offsetMs = this.#offsetMs(zone, quarter * QUARTER_MS);
      known.set(quarter, offsetMs);
    }
    return atMs + offsetMs;
  }

  #offsetMs(zone: string, atMs: number): number {
    const parts = new Map(
      this.#format(zone)
        .formatToParts(atMs)
        .map(({ type, value }) => [type, Number(value)]),
    );
    const part = (type: Intl.DateTimeFormatPartTypes) => parts.get(type)!;
    const local = Date.UTC(part('year'), part('month') - 1, part('day'), part('hour'), part('minute'));
    return local - atMs;
  }

  #format(zone: string): Intl.DateTimeFormat {
    const known = this.#formats.get(zone);
    if (known) return known;
    const format = newFormat(zone);
    this.#formats.set(zone, format);
    return format;
  }
}

function newFormat(zone: string): Intl.DateTimeFormat {
  try {
    return new Intl.DateTimeFormat('en-US', {
      ...{ timeZone: zone, calendar: 'gregory', numberingSystem: 'latn', hourCycle: 'h23' },
      ...{ year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric' },
    });
  } catch (error) {
    throw pointFailure('POLICY_ZONE_UNKNOWN', `there is no time zone «${zone}»`, {
      context: { zone },
      cause: error,
    });
  }
}

/** Days since 1970 of a local time. */
export function dayOf(localMs: number): number {
  return Math.floor(localMs / DAY_MS);
}

/** Minutes since midnight of a local time. */
export function minuteOf(localMs: number): number {
  return Math.floor((localMs - dayOf(localMs) * DAY_MS) / 60_000);
}
