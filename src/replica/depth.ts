import {
  POINTS_MAX,
  placesOf,
  type RetentionPolicy,
  type RetentionVerdict,
} from '../recovery-point/index.ts';
import { replicaFailure } from './errors.ts';
import type { BranchRecord } from './records.ts';
import type { Replica } from './replica.ts';
import type { Trunk } from './trunk.ts';

/** Branches of tests may need so many points more: a rehearsal is the last thing that ought to be refused but a recovery. */
const TESTED_MAX = 16;
/** So near to the most that is allowed a person is told. */
const NEAR = POINTS_MAX - 8;

/** How many layers a disk will be read through, and what for. */
export interface Depth {
  readonly layers: number;
  /** Points that somebody holds or uses: they stay, however old they get. */
  readonly kept: number;
  readonly places: number;
}

/**
 * How deep a chain becomes with retention as it is: the points that are held or in use (and `alsoKept`), and above them the
 * places of the policy, also those that are not taken yet; or more, if more stays for other reasons. Pure.
 */
export function depthToBe(
  verdicts: readonly Pick<RetentionVerdict, 'pointId' | 'reasons'>[],
  policy: RetentionPolicy,
  alsoKept?: string,
): Depth {
  const staying = verdicts.filter(({ pointId, reasons }) => reasons.length > 0 || pointId === alsoKept);
  const kept = staying.filter(
    ({ pointId, reasons }) => pointId === alsoKept || reasons.includes('held') || reasons.includes('in-use'),
  ).length;
  const places = placesOf(policy);
  return { layers: kept + Math.max(places, staying.length - kept), kept, places };
}

/** Throws REPLICA_TOO_DEEP if the chain would be deeper than it may be, were a point held that is not held now. */
export function checkHold(
  { record: { machineName, retention } }: Replica,
  verdicts: readonly RetentionVerdict[],
  pointId: string,
): void {
  if (verdicts.some((verdict) => verdict.pointId === pointId && verdict.reasons.includes('held'))) return;
  const depth = depthToBe(verdicts, retention, pointId);
  if (depth.layers > POINTS_MAX) throw tooDeep(machineName, depth, POINTS_MAX);
}

/**
 * Throws REPLICA_TOO_DEEP if the chain would be deeper than it may be with one more branch. A failover is never refused: what
 * it makes of the chain is told by an alert.
 */
export function checkBranch(
  replica: Trunk,
  { pointId, purpose }: Pick<BranchRecord, 'pointId' | 'purpose'>,
): void {
  const { machineName, retention } = replica.record;
  if (purpose === 'failover' || !replica.retention || !retention) return;
  const depth = depthToBe(
    replica.retention(retention, () => false),
    retention,
    pointId,
  );
  const maximum = POINTS_MAX + TESTED_MAX;
  if (depth.layers > maximum) throw tooDeep(machineName, depth, maximum);
}

function tooDeep(machineName: string, depth: Depth, maximum: number) {
  return replicaFailure(
    'REPLICA_TOO_DEEP',
    `the disks of ${machineName} would be read through ${said(depth)}; at most ${maximum} are allowed`,
    { context: { ...depth, maximum } },
  );
}

/** What a person must know before the chain is too deep; undefined while it is not, or is so by the policy alone. */
export function deepChain({ record }: Replica, verdicts: readonly RetentionVerdict[]) {
  const depth = depthToBe(verdicts, record.retention);
  if (depth.layers <= NEAR || depth.layers === depth.places) return undefined;
  return replicaFailure(
    'REPLICA_DEEP',
    `the disks of ${record.machineName} come to be read through ${said(depth)}; no more than ${POINTS_MAX} are meant to be`,
    { context: { ...depth, maximum: POINTS_MAX } },
  );
}

function said({ layers, kept, places }: Depth): string {
  return `${layers} layers: ${kept} points held or in use, ${places} places of the policy`;
}
