import Type from 'typebox';
import { dayOf, minuteOf, type Zones } from './zones.ts';

const Weekday = Type.Union([
  Type.Literal('sun'),
  Type.Literal('mon'),
  Type.Literal('tue'),
  Type.Literal('wed'),
  Type.Literal('thu'),
  Type.Literal('fri'),
  Type.Literal('sat'),
]);
type Weekday = Type.Static<typeof Weekday>;
const WEEKDAYS: readonly Weekday[] = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];

/**
 * Hours of the week. From `from` (included) to `to` (not included), both `HH:MM` of local time, on the days named. Where `to`
 * is not later than `from` the window goes over midnight and belongs to the day on which it begins.
 */
export const Window = Type.Object({
  days: Type.Array(Weekday, { minItems: 1, maxItems: 7 }),
  from: Type.String({ pattern: '^([01]\\d|2[0-3]):[0-5]\\d$' }),
  to: Type.String({ pattern: '^(([01]\\d|2[0-3]):[0-5]\\d|24:00)$' }),
  zone: Type.String({ minLength: 1, maxLength: 64 }),
});
export type Window = Type.Static<typeof Window>;

const MINUTE_MS = 60_000;
const QUARTER_MS = 15 * MINUTE_MS;
/** Windows repeat every week; a change of the clocks moves them by some hours at the most. */
const WEEK_AND_A_DAY_MS = 8 * 86_400_000;

export function isWithin({ days, from, to, zone }: Window, atMs: number, zones: Zones): boolean {
  const localMs = zones.localMs(zone, atMs);
  const day = dayOf(localMs);
  const minute = minuteOf(localMs);
  const [first, end] = [minutesOf(from), minutesOf(to)];
  const isOn = (number: number) => days.includes(weekdayOf(number));
  if (first < end) return isOn(day) && minute >= first && minute < end;
  return (isOn(day) && minute >= first) || (isOn(day - 1) && minute < end);
}

/** The first instant from `atMs` on that is in none of the windows; undefined if they leave no minute of the week. */
export function endOfWindows(windows: readonly Window[], atMs: number, zones: Zones): number | undefined {
  let at = atMs;
  while (at <= atMs + WEEK_AND_A_DAY_MS) {
    const window = windows.find((candidate) => isWithin(candidate, at, zones));
    if (!window) return at;
    at = hopOver(window, at, zones);
  }
  return undefined;
}

/** To the end of the window, but never past a quarter of an hour: within one, local time runs evenly. */
function hopOver({ to, zone }: Window, atMs: number, zones: Zones): number {
  const quarterEndMs = (Math.floor(atMs / QUARTER_MS) + 1) * QUARTER_MS;
  const minute = minuteOf(zones.localMs(zone, atMs));
  const minutesLeft = minutesOf(to) - minute;
  if (minutesLeft <= 0) return quarterEndMs;
  const endMs = (Math.floor(atMs / MINUTE_MS) + minutesLeft) * MINUTE_MS;
  return Math.min(endMs, quarterEndMs);
}

function minutesOf(text: string): number {
  return Number(text.slice(0, 2)) * 60 + Number(text.slice(3));
}

/** 1 January 1970 was a Thursday. */
function weekdayOf(day: number): Weekday {
  return WEEKDAYS[(((day + 4) % 7) + 7) % 7]!;
}
