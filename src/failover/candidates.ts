import type { Failure } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import {
  type Consistency,
  DEFAULT_WISH,
  type SelectionCandidate,
  type SelectionWish,
  shortlist,
} from '../recovery-point/index.ts';
import type { Replica } from '../replica/index.ts';
import { demotedPoints } from './application-proof.ts';
import { bootVerdicts } from './boot-proof.ts';
import { failoverFailure } from './errors.ts';

/** Which point: a certain one, or the best by a wish. `why` says that no person has named it, and how it was chosen. */
export type PointChoice =
  | { readonly pointId: string; readonly why?: string }
  | { readonly wish?: Partial<SelectionWish> };

export function isNamed(choice: PointChoice): boolean {
  return 'pointId' in choice && choice.why === undefined;
}

export interface Candidate {
  readonly pointId: string;
  readonly reason: string;
}

/** What is tried, and what a person must know of how it was chosen. */
export interface Candidates {
  readonly candidates: readonly Candidate[];
  readonly warnings: readonly string[];
}

/** What the proofs say of the points of a replica, by id. */
export interface PointProofs {
  /** How the last isolated boot ended, where there was one. */
  readonly boots: ReadonlyMap<string, 'passed' | 'failed'>;
  /** The claim of the point was refuted: it counts as crash-consistent. */
  readonly demoted: ReadonlySet<string>;
  /** Of proofs that cannot be read: they count for nothing, because the machine must come up without them. */
  readonly warnings: readonly string[];
}

export async function pointProofs(files: FileSystem, replica: Replica): Promise<PointProofs> {
  const warnings: string[] = [];
  const unread = (pointId: string, { message }: Failure) => {
    const point = replica.points.find(({ statement }) => statement.pointId === pointId);
    const named = point?.statement.sequence ?? pointId;
    warnings.push(`A proof of point ${named} cannot be read, and counts for nothing: ${message}.`);
  };
  const boots = await bootVerdicts(files, replica, unread);
  return { boots, demoted: await demotedPoints(files, replica, unread), warnings };
}

/** The points of a replica as selection looks at them. Pure. */
function selectable(
  replica: Replica,
  { boots, demoted }: Pick<PointProofs, 'boots' | 'demoted'>,
): SelectionCandidate[] {
  return replica.points.map(({ statement: { pointId, sequence, consistency }, manifest }) => ({
    ...{ pointId, sequence, cutAtMs: manifest.cutAtHereMs, boot: boots.get(pointId) ?? 'not-tried' },
    consistency: demoted.has(pointId) ? ('crash' satisfies Consistency) : consistency,
  }));
}

/** So many points are tried before a person is asked again. */
const ATTEMPTS_MAX = 3;

/**
 * The points to try, the first one first. A certain point is tried alone. Throws FAILOVER_NO_POINT,
 * REPLICA_AWAITING_SEED, and REPLICA_UNKNOWN for a point that is not there.
 */
export function candidatesOf(
  replica: Replica,
  choice: PointChoice,
  proofs: Pick<PointProofs, 'boots' | 'demoted'>,
): readonly Candidate[] {
  replica.checkUsable();
  if ('pointId' in choice) {
    const { pointId } = replica.point(choice.pointId).statement;
    return [{ pointId, reason: choice.why ?? 'named by a person' }];
  }
  const wish: SelectionWish = { ...DEFAULT_WISH, ...choice.wish };
  const points = selectable(replica, proofs);
  const choices = shortlist(points, wish, ATTEMPTS_MAX);
  if (choices.length > 0) return choices;
  throw failoverFailure(
    'FAILOVER_NO_POINT',
    `${replica.record.machineName} has no point that is at least ${wish.atLeast}-consistent${wish.provenOnly ? ' and proven to boot' : ''}`,
    { context: { machineId: replica.record.machineId, points: points.length } },
  );
}
