/** The middle one of some measurements, the upper of two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** A figure beside its target, such as «1.013 (target ≤ 1.02: met)». */
export function atMost(value: number, target: number, digits = 3): string {
  return `${value.toFixed(digits)} (target ≤ ${target}: ${value <= target ? 'met' : 'MISSED'})`;
}
