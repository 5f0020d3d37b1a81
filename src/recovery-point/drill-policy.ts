import { type Consistency, satisfies } from './copy-type.ts';

/** Which points of a machine are drilled, and how soon one must be proven; docs/policies.md, «Which points are drilled». */
export interface DrillPolicy {
  /** Points of these copy types are meant, each one; those that count as application-consistent if absent. */
  readonly copyTypes?: readonly string[] | undefined;
  /** Of the other points the newest, no more often than this says; none if absent. */
  readonly others?: DrillOthers | undefined;
  /** How long a machine may be without a proof that is newer than its oldest unproven point. */
  readonly proveWithinMs: number;
}

interface DrillOthers {
  /** When so many points have come since the last one that was drilled. */
  readonly everyPoints?: number | undefined;
  /** When the last drill of one began so long ago. */
  readonly everyMs?: number | undefined;
}

/** What all drills of a site may take together. */
export interface DrillBudget {
  readonly memoryBytes: number;
  readonly atOnce: number;
}

/** A point as drills look at it. */
export interface DrillPoint {
  readonly pointId: string;
  readonly sequence: number;
  readonly copyType: string;
  /** As its statement says. */
  readonly consistency: Consistency;
  /** When it was published here, on the wall clock of this site. */
  readonly arrivedAtMs: number;
  /** What the last isolated boot has shown. `refuted`: it came up, and is not what it claims. */
  readonly proof: 'none' | 'passed' | 'failed' | 'refuted';
  /** Why it failed or was refuted. */
  readonly reason?: string | undefined;
  /** Retention lets it go with the next point that comes. */
  readonly isLeaving: boolean;
}

/**
 * How one drill ended. `hindered`: nothing was learned of the point, because the site could not boot it. `gave-way`: to a failover;
 * it does not count. `cancelled`: a person did not want it. `unproven`: it ran, and nothing was asked of it.
 */
export type DrillOutcome =
  | 'passed'
  | 'failed'
  | 'refuted'
  | 'unproven'
  | 'hindered'
  | 'interrupted'
  | 'cancelled'
  | 'gave-way';

export interface DrillAttempt {
  readonly pointId: string;
  readonly sequence: number;
  /** Its point was not one that is meant: it was drilled as the newest of the others. */
  readonly ofOthers: boolean;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly outcome: DrillOutcome;
  readonly reason?: string | undefined;
}

/** Since when a machine lacks a proof: the first point after its newest proven one (0: there is none) came then. */
export interface DrillDebt {
  readonly sinceMs: number;
  readonly afterSequence: number;
}

/** What is known of a machine whose points are drilled. */
export interface DrillMachine {
  readonly machineId: string;
  readonly policy: DrillPolicy;
  readonly isPaused: boolean;
  /** In ascending order. */
  readonly points: readonly DrillPoint[];
  /** The newest first. */
  readonly attempts: readonly DrillAttempt[];
  /** What its guest is given when it is drilled. */
  readonly memoryBytes: number;
  /** Something can be asked of its guest: without that a boot proves nothing. */
  readonly canBeAsked: boolean;
  /** As `debtOf` said when it was last asked. */
  readonly debt?: DrillDebt | undefined;
}

/** Whether each point like this one is drilled. */
export function isMeant({ copyTypes }: DrillPolicy, point: DrillPoint): boolean {
  return copyTypes ? copyTypes.includes(point.copyType) : satisfies(point.consistency, 'application');
}

/**
 * Since when a machine lacks a proof; undefined: the newest point that counts is proven. Pure. What was known before is told by
 * `before`, because the point that began a debt may be retired long before the debt is paid. Points that are not meant count where
 * they are drilled too, and where there are no others: a machine of which nothing is ever drilled owes as well.
 */
export function debtOf(
  { policy, points }: Pick<DrillMachine, 'policy' | 'points'>,
  before: DrillDebt | undefined,
): DrillDebt | undefined {
  const meant = policy.others ? points : points.filter((point) => isMeant(policy, point));
  const counted = meant.length > 0 ? meant : points;
  const afterSequence = counted.findLast(({ proof }) => proof === 'passed')?.sequence ?? 0;
  const unproven = counted.filter(({ sequence }) => sequence > afterSequence);
  if (unproven.length === 0) return undefined;
  const arrivals = unproven.map(({ arrivedAtMs }) => arrivedAtMs);
  if (before?.afterSequence === afterSequence) arrivals.push(before.sinceMs);
  return { sinceMs: Math.min(...arrivals), afterSequence };
}
