import { happened } from './chain.ts';
import type { CutRecord, MissedCut, TargetRecord } from './records.ts';

/**
 * Cuts whose own state was given up: the point that takes them in tells of them. A target may be away for months while copies are made
 * every few seconds, so the newest are listed, and the others counted.
 */
export const MISSED_MAX = 1_000;

/** What a cut that takes in an older one tells of: `older` stands in it whatever else must go. */
export function takingIn(
  older: CutRecord,
  younger: CutRecord,
  reason: string,
): Pick<CutRecord, 'missed' | 'unlisted'> {
  const own = [missedOf(older, reason), ...younger.missed];
  const room = Math.max(0, MISSED_MAX - own.length);
  const listed = older.missed.slice(Math.max(0, older.missed.length - room));
  const unlisted = unlistedOf([older, younger]) + older.missed.length - listed.length;
  return { missed: [...listed, ...own], ...(unlisted > 0 ? { unlisted } : {}) };
}

export function missedOf({ cutId, copyType, cutAtMs }: CutRecord, reason: string): MissedCut {
  return { pointId: cutId, copyType, cutAtMs, reason };
}

/** How many cuts are missed besides those that these ones list. */
export function unlistedOf(cuts: readonly CutRecord[]): number {
  return cuts.reduce((sum, { unlisted = 0 }) => sum + unlisted, 0);
}

/** The cuts between what a target has and the one that it gets now, which it never gets as points of their own. */
export function missedBy(
  { acknowledged, outrun }: TargetRecord,
  cuts: readonly CutRecord[],
  next: CutRecord,
): MissedCut[] {
  if (!acknowledged) return told(next.missed, unlistedOf([next]));
  const since = Math.max(acknowledged.ordinal, outrun?.throughOrdinal ?? 0);
  const skipped = happened(cuts).filter(({ ordinal }) => ordinal > since && ordinal < next.ordinal);
  const ofSkipped = skipped.flatMap((cut) => [
    ...cut.missed,
    missedOf(cut, 'its target wants copies further apart'),
  ]);
  const listed = (outrun?.missed ?? []).filter(({ pointId }) => pointId !== next.cutId);
  const own = next.missed.filter(({ pointId }) => !listed.some((one) => one.pointId === pointId));
  return told([...listed, ...ofSkipped, ...own], (outrun?.unlisted ?? 0) + unlistedOf([...skipped, next]));
}

/** The oldest of those that are listed speaks for those that are not. */
function told(missed: readonly MissedCut[], unlisted: number): MissedCut[] {
  return missed.map((cut, index) =>
    index === 0 && unlisted > 0 ? { ...cut, reason: `${cut.reason} (as ${unlisted} before it)` } : cut,
  );
}
