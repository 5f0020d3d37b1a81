import type { FileSystem } from '../lib/files.ts';
import { readHeader } from '../qcow2/index.ts';
import { pointOfLayer, type ReplicaLayout } from './layout.ts';
import { partOf } from './merge-plan.ts';
import type { MergeIntent } from './records.ts';

/**
 * A merge that was begun and could not be ended yet: the disk is full, say, or a sector bad. Its points are not listed any more;
 * all others can be read between any two of its acts, as long as chains are put together from what the headers say now, and
 * not from the list of points. So a recovery need not wait for the merge.
 */
export interface Unmerged {
  readonly intent: MergeIntent;
  /** By disk: points that go and whose layers still lie right under that of `intent.into`, the oldest first. */
  readonly layers: ReadonlyMap<string, readonly string[]>;
}

/** What becomes of a merge that is found interrupted: it is ended at once, or left to the next change of the points. */
export type InterruptedMerge = 'ended' | 'left';

/** Looks up what a merge has left of the layers that it takes away. Throws what hinders reading a header. */
export async function findUnmerged(
  files: FileSystem,
  layout: ReplicaLayout,
  intent: MergeIntent,
): Promise<Unmerged> {
  const layers = new Map<string, readonly string[]>();
  for (const diskId of intent.diskIds) {
    const under: string[] = [];
    if (!partOf(intent, diskId).hasInto) continue;
    for (let at = intent.into; ; ) {
      const { backing } = await readHeader(files, layout.layer(diskId, at));
      const below = backing ? pointOfLayer(backing.name) : undefined;
      if (below === undefined || !intent.remove.includes(below)) break;
      under.unshift(below);
      at = below;
    }
    layers.set(diskId, under);
  }
  return { intent, layers };
}
