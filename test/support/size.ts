/**
 * How much of a long test is run. `npm test` takes the reduced counts, so that it stays a matter of minutes;
 * `npm run test:full` the counts that the capability asks for. Every reduction is printed.
 */
export type TestSize = 'normal' | 'full';

export function testSize(): TestSize {
  const size = process.env.WARMSITE_TEST_SIZE ?? 'normal';
  if (size === 'normal' || size === 'full') return size;
  throw new Error(`WARMSITE_TEST_SIZE is «${size}»; it must be normal or full`);
}

/**
 * The count to use now. `what` names the capability and the thing counted: `sized({ what: 'S0.10: kills',
 * normal: 10, full: 200 })` returns 10 and prints «S0.10: 10 kills (full: 200)».
 */
export function sized(counts: { what: string; normal: number; full: number }): number {
  const size = testSize();
  process.stdout.write(`${sizeLine(counts, size)}\n`);
  return counts[size];
}

/** The printed form; `scripts/test.ts` collects these lines for its report. */
export function sizeLine(counts: { what: string; normal: number; full: number }, size: TestSize): string {
  const colon = counts.what.indexOf(': ');
  const capability = colon === -1 ? '' : counts.what.slice(0, colon + 2);
  const thing = colon === -1 ? counts.what : counts.what.slice(colon + 2);
  const reduced = size === 'normal' && counts.normal !== counts.full ? ` (full: ${counts.full})` : '';
  return `${capability}${counts[size]} ${thing}${reduced}`;
}
