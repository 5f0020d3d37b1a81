import { join } from 'node:path';
import {
  applyLeaves,
  BLOCK_BYTES_DEFAULT,
  type DigestTree,
  type LayerLeaves,
  readLeaves,
  treeOfLayers,
} from '../delta/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord } from '../lib/records.ts';
import { readHeader } from '../qcow2/index.ts';
import { statementDigest } from '../recovery-point/index.ts';
import type { Incoming, ReplicaPoint } from './description.ts';
import { replicaFailure } from './errors.ts';
import type { ReplicaLayout } from './layout.ts';
import { type MergeTools, redoMerge } from './merge.ts';
import { findSession, finishPublication } from './publication.ts';
import { POINT_MANIFEST } from './records.ts';
import type { ReplicaTools } from './replica.ts';

/** What a directory says of a replica. */
export interface ReplicaState {
  readonly points: readonly ReplicaPoint[];
  /** By disk: the digests of the newest point. */
  readonly trees: ReadonlyMap<string, DigestTree>;
  readonly incoming: Incoming | null;
}

/** What the directory says, once everything that was interrupted in it has been ended. */
export async function loadState(
  tools: ReplicaTools,
  layout: ReplicaLayout,
  machineId: string,
): Promise<ReplicaState> {
  const { files } = tools;
  // A process that was killed may have left names that are in the page cache alone. A point that is reported from here
  // on, and every act that an intent asks for, must not outlive them.
  for (const directory of [layout.directory, layout.points, layout.incoming, layout.intents]) {
    await files.makeDirectory(directory);
    await files.syncDirectory(directory);
  }
  await finishPublication(files, layout);
  await redoMerge(mergeTools(tools, layout));
  const points = await loadPoints(files, layout);
  const strays = await setStraysAside(files, layout, points);
  if (strays.length > 0) tools.log.warn('replica.strays', { machineId, strays });
  await checkLayers(files, layout, points);
  const newest = points.at(-1);
  const trees = new Map<string, DigestTree>();
  for (const { diskId } of newest?.statement.disks ?? [])
    trees.set(diskId, await loadTree(files, layout, points, diskId));
  const incoming = await findSession(files, layout, newest?.statement.pointId ?? null);
  return { points, trees, incoming };
}

export function mergeTools(tools: ReplicaTools, layout: ReplicaLayout): MergeTools {
  return { files: tools.files, images: tools.images, layout, blockBytes: BLOCK_BYTES_DEFAULT };
}

/** The points of a replica, the oldest first, by their manifests. Throws REPLICA_CHAIN_BROKEN. */
async function loadPoints(files: FileSystem, layout: ReplicaLayout): Promise<ReplicaPoint[]> {
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
async function checkLayers(
  files: FileSystem,
  layout: ReplicaLayout,
  points: readonly ReplicaPoint[],
): Promise<void> {
  for (const [index, { statement }] of points.entries()) {
    for (const { diskId } of statement.disks) {
      const path = layout.layer(diskId, statement.pointId);
      if ((await files.sizeOf(path)) === undefined) {
        throw replicaFailure('REPLICA_LAYER_MISSING', `${path} is gone`, {
          context: { path, pointId: statement.pointId },
        });
      }
      const below = points[index - 1]?.statement.pointId;
      const expected = below === undefined ? undefined : `${below}.qcow2`;
      const named = (await readHeader(files, path)).backing?.name;
      if (named !== expected) {
        throw replicaFailure(
          'REPLICA_CHAIN_BROKEN',
          `${path} lies on ${named ?? 'nothing'}, not on ${expected ?? 'nothing'}`,
          {
            context: { path, pointId: statement.pointId },
          },
        );
      }
    }
  }
}

/** The digest tree of a disk at the youngest of `points`, from the leaves files. Throws REPLICA_LAYER_DAMAGED. */
export async function loadTree(
  files: FileSystem,
  layout: ReplicaLayout,
  points: readonly ReplicaPoint[],
  diskId: string,
): Promise<DigestTree> {
  let tree: DigestTree | undefined;
  for (const { statement } of points) {
    const leaves: LayerLeaves = await readLeaves(files, layout.leaves(diskId, statement.pointId));
    if (tree) applyLeaves(tree, leaves);
    else tree = treeOfLayers([leaves]);
  }
  const newest = points.at(-1)!.statement;
  const root = newest.disks.find((disk) => disk.diskId === diskId)?.root;
  if (tree!.root().toString('hex') !== root) {
    throw replicaFailure(
      'REPLICA_LAYER_DAMAGED',
      `the digests of ${diskId} at ${newest.pointId} do not make the signed root`,
      {
        context: { diskId, pointId: newest.pointId },
      },
    );
  }
  return tree!;
}
