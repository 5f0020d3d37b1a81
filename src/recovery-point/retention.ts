import { type Consistency, satisfies } from './copy-type.ts';

/** How many points of each consistency stay: `{ crash: 4, application: 2 }`. */
export interface RetentionPolicy {
  readonly crash: number;
  readonly application: number;
}

export const DEFAULT_RETENTION: RetentionPolicy = { crash: 8, application: 4 };

export interface RetentionCandidate {
  readonly pointId: string;
  readonly sequence: number;
  readonly consistency: Consistency;
  /** A proof of boot exists. */
  readonly proven: boolean;
  readonly held: boolean;
  /** A branch, a verification or a backup reads it. */
  readonly inUse: boolean;
}

export type KeepReason =
  | 'newest'
  | 'newest-proven'
  | 'held'
  | 'in-use'
  | 'policy-crash'
  | 'policy-application';

export interface RetentionVerdict {
  readonly pointId: string;
  readonly sequence: number;
  /** Empty: the point may go. */
  readonly reasons: readonly KeepReason[];
}

/**
 * Which points stay, and why. Pure. The newest point, the newest proven one, held ones and ones in use stay
 * whatever the policy says. An application-consistent point fills a place of its own type first; it does not
 * take one from the crash-consistent ones, so that `{ crash: 4, application: 2 }` holds exactly those.
 */
export function retentionOf(
  candidates: readonly RetentionCandidate[],
  policy: RetentionPolicy,
): readonly RetentionVerdict[] {
  const newestFirst = [...candidates].sort((a, b) => b.sequence - a.sequence);
  const newest = newestFirst[0];
  const newestProven = newestFirst.find((point) => point.proven);
  const isApplication = (point: RetentionCandidate) => satisfies(point.consistency, 'file-system');
  const byApplication = new Set(newestFirst.filter(isApplication).slice(0, policy.application));
  const byCrash = new Set(newestFirst.filter((point) => !isApplication(point)).slice(0, policy.crash));
  return newestFirst
    .map((point) => {
      const reasons: KeepReason[] = [];
      if (point === newest) reasons.push('newest');
      if (point === newestProven) reasons.push('newest-proven');
      if (point.held) reasons.push('held');
      if (point.inUse) reasons.push('in-use');
      if (byCrash.has(point)) reasons.push('policy-crash');
      if (byApplication.has(point)) reasons.push('policy-application');
      return { pointId: point.pointId, sequence: point.sequence, reasons };
    })
    .reverse();
}
