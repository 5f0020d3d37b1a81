/** Durations as people read them. */

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
