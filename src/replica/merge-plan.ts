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
  diskIds: readonly string[],
  mayFold: boolean,
): MergeIntent | undefined {
  const goes = (index: number) => verdicts[index] !== undefined && verdicts[index].reasons.length === 0;
  if (goes(0) && mayFold) {
    return {
      kind: 'fold',
      remove: [verdicts[0]!.pointId],
      into: verdicts[1]!.pointId,
      diskIds: [...diskIds],
    };
  }
  // While the oldest may not be touched it stays, and with it everything is in the middle.
  for (let index = 1; index < verdicts.length; index++) {
    if (!goes(index)) continue;
    const remove: string[] = [];
    while (goes(index) && remove.length < RUN_MAX) remove.push(verdicts[index++]!.pointId);
    const into = verdicts[index]!.pointId;
    const below = verdicts[index - remove.length - 1]!.pointId;
    return { kind: 'middle', remove, into, below, diskIds: [...diskIds] };
  }
  return undefined;
}
