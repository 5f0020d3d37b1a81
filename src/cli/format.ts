import { formatDuration } from '../lib/duration-text.ts';

export { formatDuration };

/** Numbers as people read them. */

const SIZE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** `1.5 MiB`; one digit behind the point at most, and none from 100 on. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1023.5 && unit < SIZE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${threeDigits(value, unit === 0)} ${SIZE_UNITS[unit]!}`;
}

export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(Math.round(bytesPerSecond))}/s`;
}

function threeDigits(value: number, whole: boolean): string {
  if (whole || value >= 99.95) return String(Math.round(value));
  return value.toFixed(1).replace(/\.0$/, '');
}

/** Local time with its offset from UTC: `2030-01-31 18:04:05 +01:00`. */
export function formatTime(wallMs: number): string {
  const date = new Date(wallMs);
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  const offset = -date.getTimezoneOffset();
  const sign = offset < 0 ? '-' : '+';
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${time} ${sign}${two(Math.abs(offset) / 60)}:${two(Math.abs(offset) % 60)}`;
}

/** `3 min 20 s ago`. */
export function formatAge(wallMs: number, nowMs: number): string {
  return nowMs >= wallMs ? `${formatDuration(nowMs - wallMs)} ago` : `in ${formatDuration(wallMs - nowMs)}`;
}

/** What of a first copy did not have to cross the wire. */
export function olderWords(bytes: number): string {
  return `${formatBytes(bytes)} from the older copy there`;
}
