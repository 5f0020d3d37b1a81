import type { StateTable } from '../../src/lib/state-table.ts';

/** A table of states as it is compared with what the code does: `from –by→ to`, sorted. */
export function waysOf(table: StateTable<string, string>): string[] {
  return Object.entries(table)
    .flatMap(([from, { next }]) => next.map(({ by, to }) => `${from} –${by}→ ${to}`))
    .sort();
}
