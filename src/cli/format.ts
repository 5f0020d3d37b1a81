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

/** `350 ms`, `5.2 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`: two units at most. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 0) return `−${formatDuration(-durationMs)}`;
  if (durationMs < 999.5) return `${threeDigits(durationMs, durationMs >= 10)} ms`;
  if (durationMs < 59_500) return `${threeDigits(durationMs / 1000, durationMs >= 9950)} s`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 3600) return twoUnits(seconds, 60, 'min', 1, 's');
  if (seconds < 86_400) return twoUnits(seconds, 3600, 'h', 60, 'min');
  return twoUnits(seconds, 86_400, 'd', 3600, 'h');
}

function twoUnits(
  seconds: number,
  large: number,
  largeName: string,
  small: number,
  smallName: string,
): string {
  const larger = Math.floor(seconds / large);
  const smaller = Math.floor((seconds % large) / small);
  return smaller === 0 ? `${larger} ${largeName}` : `${larger} ${largeName} ${smaller} ${smallName}`;
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
