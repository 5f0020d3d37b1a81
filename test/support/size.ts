import { appendFileSync } from 'node:fs';
import { getTestContext } from 'node:test';

/**
 * How much of a long test is run. `npm test` takes the reduced counts, so that it stays a matter of minutes;
 * `npm run test:full` the counts that the capability asks for. Every reduction is printed.
 */
export type TestSize = 'normal' | 'full';

export interface Counts {
  /** The capability and the thing counted, such as «S0.10: kills». */
  readonly what: string;
  readonly normal: number;
  readonly full: number;
}

export function testSize(): TestSize {
  const size = process.env.WARMSITE_TEST_SIZE ?? 'normal';
  if (size === 'normal' || size === 'full') return size;
  throw new Error(`WARMSITE_TEST_SIZE is «${size}»; it must be normal or full`);
}

/**
 * The count to use now: `sized({ what: 'S0.10: kills', normal: 10, full: 200 })` returns 10 and prints
 * «S0.10: 10 kills (full: 200)». The line also goes to the file that WARMSITE_SIZE_LOG names, from which
 * `scripts/test.ts` takes it for its report.
 */
export function sized(counts: Counts): number {
  const size = testSize();
  const line = sizeLine(counts, size);
  noteCount(line);
  return counts[size];
}

/** Prints a count, such as «S0.17: 101292 states», and keeps it with the results of the test that it was counted in. */
export function noteCount(line: string): void {
  process.stdout.write(`${line}\n`);
  const log = process.env.WARMSITE_SIZE_LOG;
  // Outside of a test it is a count of the whole file.
  const logged = { file: process.argv[1], test: getTestContext()?.fullName, line };
  if (log !== undefined) appendFileSync(log, `${JSON.stringify(logged)}\n`);
}

/** A time limit for tests whose counts are `sized`: what is long for the reduced ones, and for the full ones. */
export function sizedLimitMs(limits: { readonly normal: number; readonly full: number }): number {
  return limits[testSize()];
}

export function sizeLine(counts: Counts, size: TestSize): string {
  const colon = counts.what.indexOf(': ');
  const capability = colon === -1 ? '' : counts.what.slice(0, colon + 2);
  const thing = colon === -1 ? counts.what : counts.what.slice(colon + 2);
  const reduced = size === 'normal' && counts.normal !== counts.full ? ` (full: ${counts.full})` : '';
  return `${capability}${counts[size]} ${thing}${reduced}`;
}
