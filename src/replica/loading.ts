import { join } from 'node:path';
import {
  applyLeaves,
  BLOCK_BYTES_DEFAULT,
  type DigestTree,
  readLeaves,
  treeOfLayers,
} from '../delta/index.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord } from '../lib/records.ts';
import { readHeader } from '../qcow2/index.ts';
import { statementDigest } from '../recovery-point/index.ts';
import type { Incoming, ReplicaPoint } from './description.ts';
import { replicaFailure } from './errors.ts';
import { layerName, type ReplicaLayout } from './layout.ts';
import { type MergeTools, pendingMerge, redoMerge } from './merge.ts';
import { PointList } from './point-list.ts';
import { findSession, finishPublication } from './publication.ts';
import { POINT_MANIFEST } from './records.ts';
import { redoRebase } from './seed-import.ts';
import type { ReplicaTools } from './tools.ts';
import { findUnmerged, type InterruptedMerge, type Unmerged } from './unmerged.ts';

/** What a directory says of a replica. */
export interface ReplicaState {
  readonly points: PointList;
  /** By disk: the digests of the newest point. */
  readonly trees: ReadonlyMap<string, DigestTree>;
  readonly incoming: Incoming | null;
}

/** What the directory says, once everything that was interrupted in it has been ended, as far as that is possible now. */
export async function loadState(
  tools: ReplicaTools,
  layout: ReplicaLayout,
  machineId: string,
  merge: InterruptedMerge = 'ended',
): Promise<ReplicaState> {
  const { files } = tools;
  // A process that was killed may have left names that are in the page cache alone. A point that is reported from here
  // on, and every act that an intent asks for, must not outlive them.
  for (const directory of [layout.directory, layout.points, layout.incoming, layout.intents]) {
    await files.makeDirectory(directory);
    await files.syncDirectory(directory);
  }
  await finishPublication(files, layout);
  await redoRebase(files, layout);
  const unmerged =
    merge === 'left'
      ? await interruptedMerge(tools, layout)
      : await endInterruptedMerge(tools, layout, machineId);
  const points = PointList.of(await loadPoints(files, layout), unmerged);
  // What a merge has left belongs to no point, but is needed to end it.
  const strays = unmerged ? [] : await setStraysAside(files, layout, points.listed);
  if (strays.length > 0) tools.log.warn('replica.strays', { machineId, strays });
  await checkLayers(files, layout, points);
  const { newest } = points;
  const trees = new Map<string, DigestTree>();
  for (const { diskId } of newest?.statement.disks ?? [])
    trees.set(diskId, await loadTree(files, layout, points, diskId));
  const incoming = await findSession(files, layout, newest?.statement.pointId ?? null);
  return { points, trees, incoming };
}

/** A merge that cannot be ended now, for want of space perhaps, must keep no point from a recovery: it is ended later. */
async function endInterruptedMerge(
  tools: ReplicaTools,
  layout: ReplicaLayout,
  machineId: string,
): Promise<Unmerged | undefined> {
  try {
    await redoMerge(mergeTools(tools, layout));
    return undefined;
  } catch (error) {
    if (!isFailure(error)) throw error;
    const unmerged = await interruptedMerge(tools, layout);
    if (!unmerged) throw error;
    tools.log.error('replica.merge-unfinished', { machineId, reason: messageOf(error) });
    return unmerged;
  }
}

async function interruptedMerge(tools: ReplicaTools, layout: ReplicaLayout): Promise<Unmerged | undefined> {
  const intent = await pendingMerge(mergeTools(tools, layout));
  return intent && findUnmerged(tools.files, layout, intent);
}

export function mergeTools(tools: ReplicaTools, layout: ReplicaLayout): MergeTools {
  return { files: tools.files, images: tools.images, layout, blockBytes: BLOCK_BYTES_DEFAULT };
}

/** The points of a replica, the oldest first, by their manifests. Throws REPLICA_CHAIN_BROKEN. */
export async function loadPoints(files: FileSystem, layout: ReplicaLayout): Promise<ReplicaPoint[]> {
  const points: ReplicaPoint[] = [];
  for (const name of (await files.list(layout.points)) ?? []) {
    if (!name.endsWith('.json')) continue;
    const manifest = await loadRecord(files, join(layout.points, name), POINT_MANIFEST);
    if (!manifest) continue;
    const { statement } = manifest.signed;
    points.push({ statement, statementDigest: statementDigest(statement), manifest });
  }
  points.sort((a, b) => a.statement.sequence - b.statement.sequence);
  for (const [index, point] of points.entries()) checkFollows(points[index - 1], point);
  return points;
}

/** Neighbours in sequence name each other by digest; where retention took points between them, only order remains. */
function checkFollows(older: ReplicaPoint | undefined, younger: ReplicaPoint): void {
  if (!older) return;
  const { parent, sequence, pointId } = younger.statement;
  const isNext = sequence === older.statement.sequence + 1;
  const ok = isNext ? parent?.statementDigest === older.statementDigest : sequence > older.statement.sequence;
  if (ok) return;
  throw replicaFailure(
    'REPLICA_CHAIN_BROKEN',
    `point ${pointId} does not follow ${older.statement.pointId}`,
    {
      context: { pointId, sequence },
    },
  );
}

/**
 * Sets aside files that belong to no point: scratch files of a merge or publication that was begun anew are removed, anything
 * else goes to `quarantine/`. What looks like a layer is never deleted for want of a manifest: the manifest may be what is
 * missing. Returns what was quarantined.
 */
async function setStraysAside(
  files: FileSystem,
  layout: ReplicaLayout,
  points: readonly ReplicaPoint[],
): Promise<string[]> {
  const known = new Set(
    points.flatMap(({ statement: { pointId } }) => [`${pointId}.qcow2`, `${pointId}.leaves`]),
  );
  const strays: string[] = [];
  for (const diskId of (await files.list(layout.disks)) ?? []) {
    for (const name of (await files.list(layout.disk(diskId))) ?? []) {
      const path = join(layout.disk(diskId), name);
      if (known.has(name)) continue;
      if (/\.(merged|new)$/.test(name)) {
        await files.remove(path);
        continue;
      }
      await files.makeDirectory(layout.quarantine);
      await files.rename(path, join(layout.quarantine, `${diskId}-${name}`));
      strays.push(path);
    }
  }
  return strays;
}

/** Every layer is there and names the one below it. Throws REPLICA_LAYER_MISSING, REPLICA_CHAIN_BROKEN. */
async function checkLayers(files: FileSystem, layout: ReplicaLayout, points: PointList): Promise<void> {
  for (const diskId of points.diskIds) {
    const layers = points.upToLastOf(diskId).layers(diskId);
    for (const [index, pointId] of layers.entries()) {
      const path = layout.layer(diskId, pointId);
      if ((await files.sizeOf(path)) === undefined) {
        throw replicaFailure('REPLICA_LAYER_MISSING', `${path} is gone`, { context: { path, pointId } });
      }
      const below = layers[index - 1];
      const expected = below === undefined ? undefined : layerName(below);
      const named = (await readHeader(files, path)).backing?.name;
      if (named === expected) continue;
      const said = `${path} lies on ${named ?? 'nothing'}, not on ${expected ?? 'nothing'}`;
      throw replicaFailure('REPLICA_CHAIN_BROKEN', said, { context: { path, pointId } });
    }
  }
}

/** The digest tree of a disk at the newest of `points`, from the leaves files. Throws REPLICA_LAYER_DAMAGED. */
export async function loadTree(
  files: FileSystem,
  layout: ReplicaLayout,
  points: PointList,
  diskId: string,
): Promise<DigestTree> {
  const { pointId, disks } = points.newest!.statement;
  const leaving = points.unmerged?.intent.remove ?? [];
  let tree: DigestTree | undefined;
  for (const layer of points.layersAtMost(diskId)) {
    const path = layout.leaves(diskId, layer);
    // Where the leaves of a leaving point have been merged into those above already, they may be gone; if they are not,
    // applying them first changes nothing.
    if (leaving.includes(layer) && (await files.sizeOf(path)) === undefined) continue;
    const leaves = await readLeaves(files, path);
    if (tree) applyLeaves(tree, leaves);
    else tree = treeOfLayers([leaves]);
  }
  const root = disks.find((disk) => disk.diskId === diskId)?.root;
  if (tree!.root().toString('hex') === root) return tree!;
  const said = `the digests of ${diskId} at ${pointId} do not make the signed root`;
  throw replicaFailure('REPLICA_LAYER_DAMAGED', said, { context: { diskId, pointId } });
}
