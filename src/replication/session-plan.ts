import { compareClaims, type SignedStatement } from '../recovery-point/index.ts';
import type { Acknowledgement, ReplicaDescription } from '../replica/index.ts';
import { happened, readable } from './chain.ts';
import { unsureOf } from './outrun.ts';
import type { CutRecord, TargetRecord, UnsureCut } from './records.ts';

/** The two histories do not fit; there is no automatic way out. */
export type SessionConflict =
  /** The target has been failed over or fenced: this site is no longer the one that writes. */
  | {
      readonly why: 'fenced';
      readonly ourEpoch: number;
      readonly theirEpoch: number;
      /** Who holds it in their epoch, where they say so. */
      readonly holderSiteId?: string | undefined;
    }
  /** The target no longer holds what it had acknowledged. */
  | { readonly why: 'target-behind'; readonly acknowledged: string; readonly newest: string | null }
  /** The target holds a point that this site has not made, or no longer knows. */
  | { readonly why: 'unknown-point'; readonly newest: string };

/** What the planner looks at of a state that can be sent. */
export type Sendable = Pick<CutRecord, 'cutId' | 'ordinal' | 'state' | 'merged' | 'merging' | 'cutAtMs'>;

export interface PlanOptions {
  readonly spacingMs?: number | undefined;
  /** The states are points already, numbered by their ordinals; else each target counts what it gets. */
  readonly areNumbered?: boolean;
  /** This site, where it makes the points by a claim of its own. */
  readonly siteId?: string;
}

export type SessionPlan<C extends Sendable = CutRecord> =
  /** With `isUnready` there is something, and it will be ready by itself. */
  | { readonly kind: 'nothing'; readonly isUnready?: true }
  /** The base goes by courier: tell the target what it will be. */
  | { readonly kind: 'announce'; readonly cut: C; readonly signed: SignedStatement }
  /** The target has published a point whose acknowledgement was lost. */
  | { readonly kind: 'acknowledged'; readonly cut: C; readonly newest: Acknowledgement }
  /** The same, and layers that it was sent from may be merged away. */
  | { readonly kind: 'caught'; readonly cut: UnsureCut; readonly newest: Acknowledgement }
  | {
      readonly kind: 'full' | 'incremental';
      readonly cut: C;
      readonly sequence: number;
      readonly parent: { readonly pointId: string; readonly statementDigest: string } | null;
      /** Go on with this session, which the target knows. */
      readonly resume: string | undefined;
    }
  | { readonly kind: 'conflict'; readonly conflict: SessionConflict };

/**
 * What to do next for one target. Pure: from what this site knows and what the target says of itself.
 * Cuts are sent one by one, the oldest first; a target that wants its copies `spacingMs` apart gets the newest.
 */
export function planSession<C extends Sendable>(
  epoch: number,
  cuts: readonly C[],
  target: TargetRecord,
  replica: ReplicaDescription | null,
  { spacingMs = 0, areNumbered = false, siteId }: PlanOptions = {},
): SessionPlan<C> {
  const sequenceOf = ({ ordinal }: Pick<C, 'ordinal'>) =>
    areNumbered ? ordinal : (target.acknowledged?.sequence ?? 0) + 1;
  const acknowledged = target.acknowledged;
  // A target in a lower epoch hears of this one with the next offer.
  if (replica && outranks(replica, epoch, siteId)) {
    const { epoch: theirEpoch, holderSiteId } = replica;
    return { kind: 'conflict', conflict: { why: 'fenced', ourEpoch: epoch, theirEpoch, holderSiteId } };
  }
  const newest = replica?.newest ?? null;
  const { seed } = target;
  if (seed?.state === 'wanted' && !acknowledged && !newest) return { kind: 'nothing' };
  if (seed?.state === 'exported' && !acknowledged && (!newest || newest.pointId === seed.cutId)) {
    const exported = happened(cuts).find(({ cutId }) => cutId === seed.cutId);
    if (exported) return { kind: 'announce', cut: exported, signed: seed.signed };
  }
  if ((newest?.pointId ?? null) !== (acknowledged?.pointId ?? null)) {
    return reconcile(cuts, target, newest, sequenceOf);
  }
  const cut = nextCut(cuts, target, spacingMs);
  if (!cut) return { kind: 'nothing' };
  // What takes in another layer is being written.
  const isAbsorbing = cuts.some(({ state, ordinal }) => state === 'absorbing' && ordinal <= cut.ordinal);
  if (isAbsorbing) return { kind: 'nothing', isUnready: true };
  const incoming = replica?.incoming;
  const { session } = target;
  const isOurs = incoming?.pointId === cut.cutId && incoming.session === session?.session;
  // A point that is forwarded keeps the epoch of its statement.
  const isSame = isOurs && (areNumbered || epochOf(session) === epoch);
  return {
    kind: acknowledged ? 'incremental' : 'full',
    cut,
    sequence: sequenceOf(cut),
    parent: acknowledged
      ? { pointId: acknowledged.pointId, statementDigest: acknowledged.statementDigest }
      : null,
    resume: isSame ? incoming.session : undefined,
  };
}

/** A target in a higher epoch, or in the same one by a claim of its own, or of a third site, that is above that of this site. */
function outranks(
  { epoch: theirs, holderSiteId }: ReplicaDescription,
  epoch: number,
  siteId: string | undefined,
): boolean {
  if (theirs !== epoch || holderSiteId === undefined || siteId === undefined) return theirs > epoch;
  return compareClaims({ epoch, siteId: holderSiteId }, { epoch, siteId }) > 0;
}

/** In which epoch a session was begun: it cannot be gone on with in another one. */
export function epochOf({ epoch = 1 }: NonNullable<TargetRecord['session']>): number {
  return epoch;
}

/** What the target may get as its next point, the oldest first. */
function unacknowledged<C extends Sendable>(cuts: readonly C[], { acknowledged }: TargetRecord): C[] {
  return readable(cuts).filter(({ ordinal }) => ordinal > (acknowledged?.ordinal ?? 0));
}

function nextCut<C extends Sendable>(
  cuts: readonly C[],
  target: TargetRecord,
  spacingMs: number,
): C | undefined {
  const waiting = unacknowledged(cuts, target);
  const begun = waiting.find(({ cutId }) => cutId === target.session?.cutId);
  if (begun) return begun;
  const sinceMs = target.acknowledged?.cutAtMs;
  if (spacingMs === 0 || sinceMs === undefined) return waiting[0];
  const newest = waiting.at(-1);
  if (!newest) return undefined;
  const apartMs = newest.cutAtMs - sinceMs;
  // A clock that was set back holds nothing up.
  return apartMs >= spacingMs || apartMs < 0 ? newest : undefined;
}

function reconcile<C extends Sendable>(
  cuts: readonly C[],
  target: TargetRecord,
  newest: Acknowledgement | null,
  sequenceOf: (cut: Pick<C, 'ordinal'>) => number,
): SessionPlan<C> {
  const acknowledged = target.acknowledged;
  const unsure = unsureOf(target.outrun).find(({ pointId }) => pointId === newest?.pointId);
  // Also where a chain still reads as that point: with layers merged it would be read, and its statement made, otherwise than it was.
  if (newest && unsure && newest.sequence === sequenceOf(unsure)) {
    return { kind: 'caught', cut: unsure, newest };
  }
  const cut = unacknowledged(cuts, target).find(({ cutId }) => cutId === newest?.pointId);
  if (newest && cut && newest.sequence === sequenceOf(cut)) return { kind: 'acknowledged', cut, newest };
  const isBehind = newest === null || newest.sequence <= (acknowledged?.sequence ?? 0);
  return {
    kind: 'conflict',
    conflict:
      isBehind && acknowledged
        ? { why: 'target-behind', acknowledged: acknowledged.pointId, newest: newest?.pointId ?? null }
        : { why: 'unknown-point', newest: newest?.pointId ?? '' },
  };
}
