import { type Consistency, satisfies } from './copy-type.ts';

export interface SelectionCandidate {
  readonly pointId: string;
  readonly sequence: number;
  /** What it counts as: less than its statement says where its claim was refuted. */
  readonly consistency: Consistency;
  /** When the point was cut, on the clock of the site that chooses. */
  readonly cutAtMs: number;
  /** How its last boot in isolation ended. */
  readonly boot: 'passed' | 'failed' | 'not-tried';
}

export interface SelectionWish {
  /** Only points of at least this consistency. */
  readonly atLeast: Consistency;
  /** How much older an application-consistent point may be and still be preferred to one that is not. 0: age alone counts. */
  readonly applicationWorthMs: number;
  /** The same for a point whose boot has been proven. */
  readonly provenWorthMs: number;
  /** Only points whose last boot in isolation passed. */
  readonly provenOnly?: boolean;
}

export const DEFAULT_WISH: SelectionWish = {
  atLeast: 'crash',
  applicationWorthMs: 10_000,
  provenWorthMs: 30_000,
};

export interface SelectionChoice {
  readonly pointId: string;
  /** Why this one, as a sentence part for the report. */
  readonly reason: string;
}

/** The newest point that counts as one of this consistency, of points in ascending order. Pure. */
export function latestOf<P extends Pick<SelectionCandidate, 'consistency'>>(
  points: readonly P[],
  atLeast: Consistency,
): P | undefined {
  return points.findLast(({ consistency }) => satisfies(consistency, atLeast));
}

/**
 * Candidates for a failover, the best first, so that a revival that fails has a next try. Pure. Of each point its age behind the
 * newest is taken, less what its consistency and its proof are worth; the smallest leads, and of equals the one with more of
 * both. What has failed to boot comes after everything else. docs/consistency.md, «Which point a failover takes».
 */
export function ranked(
  candidates: readonly SelectionCandidate[],
  wish: SelectionWish,
): readonly SelectionChoice[] {
  const points = newestFirst(candidates).filter(
    (point) => satisfies(point.consistency, wish.atLeast) && (!wish.provenOnly || point.boot === 'passed'),
  );
  const [newest] = points;
  if (!newest) return [];
  const worthOf = (point: SelectionCandidate) =>
    (satisfies(point.consistency, 'application') ? wish.applicationWorthMs : 0) +
    (point.boot === 'passed' ? wish.provenWorthMs : 0);
  const hasFailed = ({ boot }: SelectionCandidate) => Number(boot === 'failed');
  const byRank = points
    .map((point) => ({ point, worthMs: worthOf(point), ageMs: ageMs(point, newest) }))
    // The sort is stable: of equals in everything the newer one stays ahead.
    .sort(
      (a, b) =>
        hasFailed(a.point) - hasFailed(b.point) ||
        a.ageMs - a.worthMs - (b.ageMs - b.worthMs) ||
        b.worthMs - a.worthMs,
    );
  return byRank.map(({ point, ageMs: gapMs }, index) => ({
    pointId: point.pointId,
    reason: index > 0 ? 'the next in rank' : point === newest ? 'the newest point' : merits(point, gapMs),
  }));
}

/**
 * The first of the ranked candidates, as many as are to be tried. Pure. If none of them has been proven, the best proven one takes the
 * last place: of points that nobody has seen boot, several can have one fault, and a failover must not end beside a point that
 * is known to come up.
 */
export function shortlist(
  candidates: readonly SelectionCandidate[],
  wish: SelectionWish,
  attemptsMax: number,
): readonly SelectionChoice[] {
  const all = ranked(candidates, wish);
  const first = all.slice(0, attemptsMax);
  const proven = new Set(candidates.flatMap(({ pointId, boot }) => (boot === 'passed' ? [pointId] : [])));
  if (first.some(({ pointId }) => proven.has(pointId))) return first;
  const last = all.find(({ pointId }) => proven.has(pointId));
  if (!last) return first;
  const reason = 'proven to boot, which none of those before it is';
  return [...first.slice(0, -1), { ...last, reason }];
}

/** A clock that was put back between the two makes no point younger than the newest. */
function ageMs(point: SelectionCandidate, newest: SelectionCandidate): number {
  return Math.max(0, newest.cutAtMs - point.cutAtMs);
}

function merits({ consistency, boot }: SelectionCandidate, gapMs: number): string {
  const said = [
    ...(satisfies(consistency, 'application') ? ['application-consistent'] : []),
    ...(boot === 'passed' ? ['proven to boot'] : []),
  ];
  if (said.length === 0) return 'the newest of which no boot has failed';
  return `${said.join(', ')} and only ${(gapMs / 1000).toFixed(1)} s older than the newest`;
}

function newestFirst<P extends { readonly sequence: number }>(points: readonly P[]): P[] {
  return [...points].sort((a, b) => b.sequence - a.sequence);
}
