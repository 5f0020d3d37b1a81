import type { Calendar, RetentionPolicy } from './retention-policy.ts';
import { dayOf, type Zones } from './zones.ts';

export interface RetentionCandidate {
  readonly pointId: string;
  readonly sequence: number;
  readonly copyType: string;
  /** It reached less than its type strives for. */
  readonly degraded: boolean;
  /** When it was cut, on the clock of the protected site. */
  readonly cutAtMs: number;
  /** The same on the clock of the site that keeps it. */
  readonly cutAtHereMs: number;
  /** A proof of boot exists. */
  readonly proven: boolean;
  /** A person holds it; `untilMs` on the wall clock, absent: until it is released. */
  readonly hold?: { readonly untilMs?: number };
  /** A branch, a verification or a backup reads it. */
  readonly inUse: boolean;
}

type Period = Exclude<keyof Calendar, 'zone'>;

export type KeepReason =
  | 'newest'
  | 'newest-proven'
  | 'held'
  | 'in-use'
  /** A point of the same cut of its group stays. */
  | 'group'
  | 'newest-group'
  /** Points of the same cut are still to come. */
  | 'group-awaited'
  /** It is on its way to another site. */
  | 'forwarding'
  /** The site that keeps it wants to, whatever the one that sends it says. */
  | 'floor'
  /** A proof of the machine cannot be read: nothing of it goes until it can. */
  | 'proof-unread'
  /** A place of its copy type. */
  | `type-${string}`
  | Period;

export interface RetentionVerdict {
  readonly pointId: string;
  readonly sequence: number;
  /** Empty: the point may go. */
  readonly reasons: readonly KeepReason[];
}

const PERIODS = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const satisfies readonly Period[];

/**
 * Which points stay, and why. Pure, and without a clock of its own: «now» is when the newest point was cut, on whichever of
 * the two sites' clocks says the earlier. So one clock that leaps, or a source that is silent, lets nothing grow old.
 *
 * The newest point, the newest proven one, held ones and ones in use stay whatever the policy says. A point fills a place of
 * its own copy type and takes none of another: `{ crash: 4, app: 2 }` holds exactly those. A degraded copy counts as a
 * crash-consistent one, so that it takes no place from better ones. Verdicts are in ascending order.
 */
export function retentionOf(
  candidates: readonly RetentionCandidate[],
  policy: RetentionPolicy,
  zones: Zones,
): readonly RetentionVerdict[] {
  const newestFirst = [...candidates].sort((a, b) => b.sequence - a.sequence);
  const [newest] = newestFirst;
  if (!newest) return [];
  const kept = new Map<RetentionCandidate, KeepReason[]>(newestFirst.map((point) => [point, []]));
  const keep = (point: RetentionCandidate | undefined, reason: KeepReason) =>
    point && kept.get(point)!.push(reason);
  keep(newest, 'newest');
  keep(
    newestFirst.find(({ proven }) => proven),
    'newest-proven',
  );
  for (const point of newestFirst) {
    if (isHeld(point, newest)) keep(point, 'held');
    if (point.inUse) keep(point, 'in-use');
  }
  const young = newestFirst.filter(
    (point) => ageMs(point, newest) <= (policy.maximumAgeMs ?? Number.POSITIVE_INFINITY),
  );
  const left: Record<string, number> = { ...policy.types };
  for (const point of young) {
    const type = point.degraded ? 'crash' : point.copyType;
    if ((left[type] ?? 0) <= 0) continue;
    left[type]! -= 1;
    keep(point, `type-${type}`);
  }
  const { calendar } = policy;
  if (calendar) {
    const cutAt = ({ cutAtMs }: RetentionCandidate) => cutAtMs;
    for (const period of PERIODS) {
      for (const point of newestOfEach(young, period, calendar, zones, cutAt)) keep(point, period);
    }
  }
  return newestFirst
    .map((point) => ({ pointId: point.pointId, sequence: point.sequence, reasons: kept.get(point)! }))
    .reverse();
}

/**
 * Points that the next copy takes the place of, as far as it can be known: those that nothing keeps any more, and of each type whose
 * places are all taken the oldest one, if nothing else keeps it. Pure.
 */
export function leavingNext(
  verdicts: readonly RetentionVerdict[],
  { types }: Pick<RetentionPolicy, 'types'>,
): ReadonlySet<string> {
  const leaving = verdicts.filter(({ reasons }) => reasons.length === 0);
  for (const [type, places] of Object.entries(types)) {
    const holders = verdicts.filter(({ reasons }) => reasons.includes(`type-${type}`));
    const [oldest] = holders.toSorted((a, b) => a.sequence - b.sequence);
    if (oldest && holders.length >= places && oldest.reasons.length === 1) leaving.push(oldest);
  }
  return new Set(leaving.map(({ pointId }) => pointId));
}

/** A point as the site sees it that keeps it: nothing of this is the sender's word. */
export interface ArrivedPoint {
  readonly pointId: string;
  readonly sequence: number;
  /** When it was published, on the clock of the site that keeps it. */
  readonly arrivedAtMs: number;
}

/**
 * The points that stay for the floor of the site that keeps them: the newest that arrived in each of so many hours, days, …
 * Pure. A sender that is not to be trusted any more can take the place of an hour's or a day's point by a newer one, but not
 * that of an earlier one's: neither by what it asks to keep, nor by its clock, nor by sending many.
 */
export function keptByFloor(
  points: readonly ArrivedPoint[],
  floor: Calendar,
  zones: Zones,
): ReadonlySet<string> {
  const newestFirst = points.toSorted((a, b) => b.sequence - a.sequence);
  const arrivedAt = ({ arrivedAtMs }: ArrivedPoint) => arrivedAtMs;
  const kept = PERIODS.flatMap((period) => newestOfEach(newestFirst, period, floor, zones, arrivedAt));
  return new Set(kept.map(({ pointId }) => pointId));
}

/** A hold ends when a point is younger than its end by both clocks. */
function isHeld({ hold }: RetentionCandidate, newest: RetentionCandidate): boolean {
  if (!hold) return false;
  return hold.untilMs === undefined || Math.min(newest.cutAtMs, newest.cutAtHereMs) < hold.untilMs;
}

/** By the clock that says less: a leap of either makes no point old. */
function ageMs(point: RetentionCandidate, newest: RetentionCandidate): number {
  return Math.min(newest.cutAtMs - point.cutAtMs, newest.cutAtHereMs - point.cutAtHereMs);
}

function newestOfEach<T>(
  newestFirst: readonly T[],
  period: Period,
  calendar: Calendar,
  zones: Zones,
  timeOf: (point: T) => number,
): T[] {
  const places = calendar[period] ?? 0;
  const seen = new Set<number>();
  const chosen: T[] = [];
  for (const point of newestFirst) {
    if (chosen.length >= places) break;
    const name = periodOf(period, zones.localMs(calendar.zone, timeOf(point)));
    if (seen.has(name)) continue;
    seen.add(name);
    chosen.push(point);
  }
  return chosen;
}

/** A number that all instants of one hour, day, … share. */
function periodOf(period: Period, localMs: number): number {
  switch (period) {
    case 'hourly':
      return Math.floor(localMs / 3_600_000);
    case 'daily':
      return dayOf(localMs);
    case 'weekly':
      // 1 January 1970 was a Thursday; weeks begin on Monday.
      return Math.floor((dayOf(localMs) + 3) / 7);
    default: {
      const local = new Date(localMs);
      const year = local.getUTCFullYear();
      return period === 'yearly' ? year : year * 12 + local.getUTCMonth();
    }
  }
}
