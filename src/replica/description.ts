import type { DeltaHeader, DeltaProgress } from '../delta/index.ts';
import type { Failure } from '../lib/errors.ts';
import type { PointStatement } from '../recovery-point/index.ts';
import { replicaFailure } from './errors.ts';
import type { PointManifest, ReplicaRecord } from './records.ts';
import { rightState } from './replica-tenure.ts';

/** A published point as callers see it. */
export interface ReplicaPoint {
  readonly statement: PointStatement;
  readonly statementDigest: string;
  readonly manifest: PointManifest;
}

/** A disk that came to its machine later is not in the points before, one that was taken away not in those after. */
export function hasDisk({ statement }: ReplicaPoint, diskId: string): boolean {
  return statement.disks.some((disk) => disk.diskId === diskId);
}

export function diskIdsOf({ statement }: ReplicaPoint): string[] {
  return statement.disks.map(({ diskId }) => diskId);
}

/** The receiver's word that a point is durable here, read back and equal to what was signed. */
export interface Acknowledgement {
  /** `awaiting-seed`: all of that but the base, which comes by courier: before it nothing can be recovered. */
  readonly level: 'verified' | 'awaiting-seed';
  readonly pointId: string;
  readonly sequence: number;
  readonly statementDigest: string;
  /** When it was published, on the receiver's wall clock. */
  readonly publishedAtMs: number;
}

/** A delta of which a part is durable here already, and how far it is. */
export interface Incoming {
  readonly session: string;
  readonly pointId: string;
  readonly progress: DeltaProgress;
}

export interface ReplicaDescription {
  readonly machineId: string;
  readonly epoch: number;
  /** Who holds the right to run the machine, in that epoch; absent where only the epoch is known. */
  readonly holderSiteId?: string;
  readonly newest: Acknowledgement | null;
  readonly incoming: Incoming | null;
}

export function standingOf({
  machineId,
  epoch,
  tenure,
}: ReplicaRecord): Pick<ReplicaDescription, 'machineId' | 'epoch' | 'holderSiteId'> {
  return { machineId, epoch, ...(tenure ? { holderSiteId: tenure.claim.siteId } : {}) };
}

export function acknowledgementOf(point: ReplicaPoint, isAwaitingSeed: boolean): Acknowledgement {
  return {
    level: isAwaitingSeed ? 'awaiting-seed' : 'verified',
    pointId: point.statement.pointId,
    sequence: point.statement.sequence,
    statementDigest: point.statementDigest,
    publishedAtMs: point.manifest.publishedAtMs,
  };
}

/**
 * Nothing that a replica has is needed by anybody: it may go. Throws REPLICA_NEEDED, which names everything that stands in
 * the way. Pure.
 */
export function checkNotNeeded(
  record: ReplicaRecord,
  o: {
    readonly points: readonly ReplicaPoint[];
    readonly branches: number;
    readonly readers: number;
    readonly uploads: number;
  },
): void {
  const { machineId, machineName } = record;
  const held = o.points.filter(({ manifest }) => manifest.held).length;
  const needs = [
    ...(o.branches > 0 ? [`branches (${o.branches})`] : []),
    ...(o.readers > 0 ? ['a machine or a verification that reads it'] : []),
    ...(held > 0 ? [`points that are held (${held})`] : []),
    ...(o.uploads > 0 ? ['a copy that is coming in'] : []),
    ...(record.offer && rightState(record) !== 'holds'
      ? ['an offer of its machine, which only `warmsite failover take` here or `withdraw` there ends']
      : []),
  ];
  if (needs.length === 0) return;
  throw replicaFailure('REPLICA_NEEDED', `the replica of ${machineName} has ${needs.join(', ')}`, {
    context: { machineId, needs: needs.join(', ') },
  });
}

/** A failover may have raised the epoch while the delta came in: its source is fenced off then. Throws REPLICA_SESSION_OUTDATED. */
export function checkEpoch({ epoch: held }: ReplicaRecord, { epoch, pointId }: DeltaHeader): void {
  if (epoch === held) return;
  const said = `the delta is of epoch ${epoch}, the replica of ${held}`;
  throw replicaFailure('REPLICA_SESSION_OUTDATED', said, { context: { pointId, offered: epoch, held } });
}

/** A machine that this site runs, or has taken, gets no copies of another one. Throws REPLICA_IN_USE. */
export function checkReceiving(record: ReplicaRecord, { epoch }: Pick<DeltaHeader, 'epoch'>): void {
  const isHeld = record.adopted !== undefined || record.tenure?.state === 'holds';
  // Of another epoch it is refused with the reason, as ever.
  if (!isHeld || (record.adopted === undefined && epoch !== record.epoch)) return;
  const said = `${record.machineName} is at home at this site, in epoch ${record.epoch}`;
  throw replicaFailure('REPLICA_IN_USE', said);
}

export function mergeUnfinished(): Failure {
  return replicaFailure('REPLICA_IN_USE', 'an interrupted merge must end first, and the replica is read');
}

/** What is said to those who come to a replica that has been given up. */
export function removedFailure({ machineId, machineName }: ReplicaRecord): Failure {
  const said = `the replica of ${machineName} has been removed`;
  return replicaFailure('REPLICA_REMOVED', said, { context: { machineId } });
}
