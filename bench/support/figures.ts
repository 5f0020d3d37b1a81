/** The middle one of some measurements, the upper of two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** A figure beside its target, such as «1.013 (target ≤ 1.02: PASS)». */
export function atMost(value: number, target: number, digits = 3): string {
  return `${value.toFixed(digits)} (target ≤ ${target}: ${verdict(value <= target)})`;
}

export function atLeast(value: number, target: number, digits = 3): string {
  return `${value.toFixed(digits)} (target ≥ ${target}: ${verdict(value >= target)})`;
}

/** As `atMost`, for a figure that shall lie between two bounds. */
export function between(value: number, least: number, most: number, digits = 3): string {
  return `${value.toFixed(digits)} (target ${least} to ${most}: ${verdict(value >= least && value <= most)})`;
}

function verdict(isMet: boolean): string {
  return isMet ? 'PASS' : 'MISS';
}
