import type { RetentionVerdict } from '../recovery-point/index.ts';
import type { MergeIntent } from './records.ts';

/** So many points are merged in one go at the most: a merge is redone from its start when it is interrupted. */
const RUN_MAX = 16;

/**
 * The next merge that retention asks for, or nothing. Pure. Runs of points that go are merged together into the next
 * one that stays; a run at the old end is folded one by one into the oldest layer, if that is allowed now.
 * `verdicts` are in ascending order; the newest always stays.
 */
export function planMerge(
  verdicts: readonly RetentionVerdict[],
  diskIdsOf: (pointId: string) => readonly string[],
  mayFold: boolean,
): MergeIntent | undefined {
  const goes = (index: number) => verdicts[index] !== undefined && verdicts[index].reasons.length === 0;
  if (goes(0) && mayFold) {
    const intent = { kind: 'fold' as const, remove: [verdicts[0]!.pointId], into: verdicts[1]!.pointId };
    return { ...intent, ...disksIn(intent, diskIdsOf) };
  }
  // While the oldest may not be touched it stays, and with it everything is in the middle.
  for (let index = 1; index < verdicts.length; index++) {
    if (!goes(index)) continue;
    const remove: string[] = [];
    while (goes(index) && remove.length < RUN_MAX) remove.push(verdicts[index++]!.pointId);
    const into = verdicts[index]!.pointId;
    const below = verdicts[index - remove.length - 1]!.pointId;
    const intent = { kind: 'middle' as const, remove, into, below };
    return { ...intent, ...disksIn(intent, diskIdsOf) };
  }
  return undefined;
}

function disksIn(
  intent: Pick<MergeIntent, 'remove' | 'into' | 'below'>,
  diskIdsOf: (pointId: string) => readonly string[],
): Pick<MergeIntent, 'diskIds' | 'having'> {
  const pointIds = [...(intent.below === undefined ? [] : [intent.below]), ...intent.remove, intent.into];
  const having = new Map<string, string[]>();
  for (const pointId of pointIds) {
    for (const diskId of diskIdsOf(pointId)) having.set(diskId, [...(having.get(diskId) ?? []), pointId]);
  }
  const partial = [...having].filter(([, those]) => those.length < pointIds.length);
  return {
    diskIds: [...having.keys()],
    ...(partial.length > 0 ? { having: Object.fromEntries(partial) } : {}),
  };
}

/** What a merge is for one disk: which of the points have it. */
export interface MergePart {
  /** Points that go and have the disk, the oldest first. */
  readonly remove: readonly string[];
  /** The point above takes their content; if it does not have the disk, their layers only go. */
  readonly hasInto: boolean;
  /** The layer that the result lies upon; undefined: it is complete. */
  readonly below: string | undefined;
}

export function partOf({ remove, into, below, having }: MergeIntent, diskId: string): MergePart {
  const those = having?.[diskId];
  const has = (pointId: string) => those?.includes(pointId) ?? true;
  return {
    remove: remove.filter(has),
    hasInto: has(into),
    below: below !== undefined && has(below) ? below : undefined,
  };
}
