import type { LimitWindowShape, Retention, ScheduleShape, TriggerShape, WindowShape } from '../api/index.ts';
import { invalid, parseCount, parseDuration, parseRate, parseSize } from './values.ts';

/** How copy policies are written on the command line; docs/policies.md shows all forms. */

const DAYS: readonly WindowShape['days'][number][] = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
const WINDOW_FORM = 'hours of the week such as «Mon-Fri 08:00-18:00 Europe/Berlin»';

/** `Mon-Fri 08:00-18:00 Europe/Berlin`, `Sat,Sun 00:00-24:00 UTC`, `daily 22:00-06:00 UTC`. */
export function parseWindow(text: string): WindowShape {
  const [days, hours, zone, ...more] = text.trim().split(/\s+/);
  const match = /^([01]\d|2[0-3]):([0-5]\d)-(([01]\d|2[0-3]):[0-5]\d|24:00)$/.exec(hours ?? '');
  if (!days || !match || !zone || more.length > 0) throw invalid(text, WINDOW_FORM);
  return { days: daysOf(days, text), from: hours!.slice(0, 5), to: hours!.slice(6), zone };
}

function daysOf(word: string, text: string): WindowShape['days'] {
  if (word === 'daily') return [...DAYS];
  const at = (name: string | undefined) => {
    const index = DAYS.indexOf(name?.toLowerCase() as (typeof DAYS)[number]);
    if (index < 0) throw invalid(text, WINDOW_FORM);
    return index;
  };
  const days = word.split(',').flatMap((part) => {
    const [first, last, ...more] = part.split('-');
    if (more.length > 0) throw invalid(text, WINDOW_FORM);
    const from = at(first);
    const count = last === undefined ? 1 : ((at(last) - from + 7) % 7) + 1;
    return Array.from({ length: count }, (_, index) => DAYS[(from + index) % 7]!);
  });
  return DAYS.filter((day) => days.includes(day));
}

/** `Mon-Fri 08:00-18:00 Europe/Berlin=2M/s`, or `=unlimited`. */
export function parseLimitWindow(text: string): LimitWindowShape {
  const at = text.lastIndexOf('=');
  if (at < 0) throw invalid(text, `${WINDOW_FORM} and a rate, such as «…=2M/s»`);
  const rate = parseRate(text.slice(at + 1));
  return { window: parseWindow(text.slice(0, at)), bytesPerSecond: rate === 'unlimited' ? null : rate };
}

const SCHEDULE_FORM =
  'a copy type and when it is made, such as «app=every 15m», «app=at 0 2 * * * Europe/Berlin», «crash=between 10s and 10m», «crash=after 256M», «app=on deploy», «app=port NAME» or «app=off»';

/** One trigger of one copy type; `off` is a type without any. */
export function parseSchedule(text: string): ScheduleShape {
  const match = /^([a-z][a-z0-9-]{0,31})=(\S+)(?:\s+(.*))?$/.exec(text.trim());
  if (!match) throw invalid(text, SCHEDULE_FORM);
  const [, copyType, word, rest = ''] = match;
  if (word === 'off' && rest === '') return { copyType: copyType!, triggers: [] };
  return { copyType: copyType!, triggers: [triggerOf(word!, rest.trim(), text)] };
}

function triggerOf(word: string, rest: string, text: string): TriggerShape {
  const words = rest.split(/\s+/);
  switch (word) {
    case 'every':
      return { kind: 'interval', everyMs: parseDuration(rest) };
    case 'at':
      if (words.length === 6) return { kind: 'fixed', cron: words.slice(0, 5).join(' '), zone: words[5]! };
      break;
    case 'between':
      if (words.length === 3 && words[1] === 'and') {
        const [minimumMs, maximumMs] = [parseDuration(words[0]!), parseDuration(words[2]!)];
        return { kind: 'variable', minimumMs, maximumMs };
      }
      break;
    case 'after':
      return { kind: 'written', bytes: parseSize(rest) };
    case 'on':
      if (words.length === 1) return { kind: 'call', name: rest };
      break;
    case 'port':
      if (words.length === 1) return { kind: 'guest', port: rest };
      break;
  }
  throw invalid(text, SCHEDULE_FORM);
}

/** `crash:4,app:2,nightly-db:7`. */
export function parseKeep(text: string): Retention['types'] {
  return Object.fromEntries(
    text.split(',').map((part) => {
      const match = /^([a-z][a-z0-9-]{0,31}):(\d{1,3})$/.exec(part.trim());
      if (!match) throw invalid(text, 'how many points of each type stay, such as «crash:4,app:2»');
      return [match[1], parseCount(match[2]!, 0, 128)];
    }),
  );
}

const CALENDAR_FORM =
  'periods and a time zone, such as «daily:7,weekly:4,monthly:12 Europe/Berlin», or «none»';

/** `daily:7,weekly:4,monthly:12 Europe/Berlin`, or `none`. */
export function parseCalendar(text: string): NonNullable<Retention['calendar']> | 'none' {
  if (text === 'none') return text;
  const [periods, zone, ...more] = text.trim().split(/\s+/);
  if (!periods || !zone || more.length > 0) throw invalid(text, CALENDAR_FORM);
  const entries = periods.split(',').map((part) => {
    const match = /^(hourly|daily|weekly|monthly|yearly):(\d{1,3})$/.exec(part);
    if (!match) throw invalid(text, CALENDAR_FORM);
    return [match[1], parseCount(match[2]!, 0, 128)];
  });
  return { zone, ...Object.fromEntries(entries) };
}

/** A duration, or `forever`. */
export function parseAge(text: string): number | 'forever' {
  return text === 'forever' ? text : parseDuration(text);
}

/** As `parse`, or `none`. */
export function orNone<T>(parse: (text: string) => T): (text: string) => T | 'none' {
  return (text) => (text === 'none' ? text : parse(text));
}
