import { type Consistency, satisfies } from './copy-type.ts';

export interface SelectionCandidate {
  readonly pointId: string;
  readonly sequence: number;
  readonly consistency: Consistency;
  /** When the point was cut, on the clock of the site that chooses. */
  readonly cutAtMs: number;
  readonly proven: boolean;
}

export interface SelectionWish {
  /** Only points of at least this consistency. */
  readonly atLeast: Consistency;
  /**
   * How much younger a crash-consistent point may be before it is preferred to an application-consistent one.
   * 0: always the newest.
   */
  readonly applicationWorthMs: number;
}

export const DEFAULT_WISH: SelectionWish = { atLeast: 'crash', applicationWorthMs: 10_000 };

export interface SelectionChoice {
  readonly pointId: string;
  /** Why this one, as a sentence part for the report. */
  readonly reason: string;
}

/**
 * Candidates for a failover, the best first. Pure. The newest point leads, unless an application-consistent one is
 * at most `applicationWorthMs` older; the rest follow by age, so that a revival that fails has a next try.
 */
export function ranked(
  candidates: readonly SelectionCandidate[],
  wish: SelectionWish,
): readonly SelectionChoice[] {
  const newestFirst = candidates
    .filter((point) => satisfies(point.consistency, wish.atLeast))
    .sort((a, b) => b.sequence - a.sequence);
  const newest = newestFirst[0];
  if (!newest) return [];
  const consistent = newestFirst.find((point) => satisfies(point.consistency, 'application'));
  const ageGapMs = consistent ? newest.cutAtMs - consistent.cutAtMs : Number.POSITIVE_INFINITY;
  const first = consistent && ageGapMs <= wish.applicationWorthMs ? consistent : newest;
  const why =
    first === newest
      ? 'the newest point'
      : `application-consistent and only ${(ageGapMs / 1000).toFixed(1)} s older than the newest`;
  const rest = newestFirst.filter((point) => point !== first);
  return [
    { pointId: first.pointId, reason: why },
    ...rest.map((point) => ({ pointId: point.pointId, reason: 'the next by age' })),
  ];
}
