import { join } from 'node:path';
import { DigestTree, type LayerLeaves, mergeLeaves, readLeaves, writeLeaves } from '../delta/index.ts';
import type { DiskImages, ImageFile, ImageReader } from '../hypervisor/index.ts';
import { assert } from '../lib/assert.ts';
import { type Extents, piecesOf, unionOf } from '../lib/extents.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { LayerWriter, readHeader } from '../qcow2/index.ts';
import { differenceFrom, readAhead } from './content.ts';
import { replicaFailure } from './errors.ts';
import { layerName, type ReplicaLayout } from './layout.ts';
import { partOf } from './merge-plan.ts';
import { MERGE_INTENT, type MergeIntent, mergeKind } from './records.ts';

export interface MergeTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly layout: ReplicaLayout;
  readonly blockBytes: number;
}

/**
 * Merging: points go, their content moves into the layer above them, and no child's header is ever rewritten.
 *
 * ```text
 *   middle   j ← k ← l ← m     write k+l aside with backing j, check it, retire k, rename over l
 *   fold     k ← l ← m         retire k, commit l into k in place, check it, rename k over l
 * ```
 *
 * A disk that begins among these points is merged from its first layer on, into one that is complete; of one that ends
 * among them the layers only go. The intent is durable before the first act, and every act may be repeated, so a merge that was killed is done
 * again from its intent until that is gone. Readers: a middle merge disturbs nobody, since who has the old files
 * open keeps them; a fold writes into the oldest layer and needs it for itself alone.
 */
export async function runMerge(tools: MergeTools, intent: MergeIntent): Promise<void> {
  const { files, layout } = tools;
  await files.makeDirectory(layout.intents);
  await storeRecord(files, intentPath(layout), mergeKind(intent), intent);
  await carryOut(tools, intent);
}

/**
 * Ends a merge that failed on its way, or was under way when the process died, if there is one. Its intent is stored once more:
 * that it can be read does not say that it is durable, for storing it may be what failed.
 */
export async function redoMerge(tools: MergeTools): Promise<MergeIntent | undefined> {
  const intent = await pendingMerge(tools);
  if (intent) await runMerge(tools, intent);
  return intent;
}

/** A merge that was begun and has not ended. */
export function pendingMerge({ files, layout }: MergeTools): Promise<MergeIntent | undefined> {
  return loadRecord(files, intentPath(layout), MERGE_INTENT);
}

function intentPath(layout: ReplicaLayout): string {
  return join(layout.intents, 'merge.json');
}

async function carryOut(tools: MergeTools, intent: MergeIntent): Promise<void> {
  const { files, layout } = tools;
  if (intent.kind === 'middle') await mergeMiddle(tools, intent);
  else await foldOldest(tools, intent);
  for (const pointId of intent.remove) await files.removeDirectory(layout.proofs(pointId));
  await files.remove(intentPath(layout));
  await files.syncDirectory(layout.intents);
}

async function mergeMiddle(tools: MergeTools, intent: MergeIntent): Promise<void> {
  const { files, layout } = tools;
  assert(intent.below !== undefined, 'a merge in the middle has a point below');
  const oldestManifest = layout.manifest(intent.remove[0]!);
  if ((await files.sizeOf(oldestManifest)) !== undefined) {
    // Nothing has been retired yet: whatever stands aside may be half written and is made anew.
    for (const diskId of intent.diskIds) await writeMergedAside(tools, intent, diskId);
    await retire(tools, [...intent.remove].reverse());
  }
  for (const diskId of intent.diskIds) {
    await renameIfThere(files, asidePath(layout, diskId, intent.into), layout.layer(diskId, intent.into));
    await renameIfThere(files, asideLeaves(layout, diskId, intent.into), layout.leaves(diskId, intent.into));
    await files.syncDirectory(layout.disk(diskId));
    for (const pointId of intent.remove) {
      await files.remove(layout.layer(diskId, pointId));
      await files.remove(layout.leaves(diskId, pointId));
    }
    await files.syncDirectory(layout.disk(diskId));
  }
}

/** Takes points out of the list, the youngest first: the oldest manifest is the sign that nothing was retired. */
async function retire({ files, layout }: MergeTools, pointIds: readonly string[]): Promise<void> {
  for (const pointId of pointIds) {
    await files.remove(layout.manifest(pointId));
    await files.syncDirectory(layout.points);
  }
}

async function writeMergedAside(tools: MergeTools, intent: MergeIntent, diskId: string): Promise<void> {
  const { files, images, layout, blockBytes } = tools;
  const { remove, hasInto, below } = partOf(intent, diskId);
  if (remove.length === 0 || !hasInto) return;
  const merged = [...remove, intent.into];
  const aside = asidePath(layout, diskId, intent.into);
  await files.remove(aside);
  await using source = await images.open(merged.map((pointId) => layerFile(layout, diskId, pointId)));
  const { data, zero } = await source.ownExtents(merged.length);
  const backing = below === undefined ? null : { name: layerName(below), format: 'qcow2' as const };
  const writer = await LayerWriter.create(files, aside, { sizeBytes: source.sizeBytes, backing });
  try {
    const zeros = zero[Symbol.iterator]();
    let nextZero = zeros.next();
    const zeroUpTo = async (offset: number) => {
      for (; !nextZero.done && nextZero.value.offset < offset; nextZero = zeros.next()) {
        await writer.zero(nextZero.value.offset, nextZero.value.length);
      }
    };
    for await (const { piece, data: bytes } of readAhead(source, piecesOf(data, 1024 * 1024))) {
      await zeroUpTo(piece.offset);
      await writer.write(piece.offset, bytes);
    }
    await zeroUpTo(Number.POSITIVE_INFINITY);
    await writer.finish();
  } finally {
    await writer[Symbol.asyncDispose]();
  }
  const leaves = await mergedLeaves(tools, diskId, merged);
  const chain = below === undefined ? [] : await chainBelow(tools, diskId, below);
  await using result = await images.open([...chain, { path: aside, format: 'qcow2' }], { fromDevice: true });
  await expectContent(result, leaves, unionOf(data, zero), blockBytes, `${diskId} of ${intent.into}`);
  await writeLeaves(files, asideLeaves(layout, diskId, intent.into), leaves);
  await files.setReadOnly(aside, true);
  await files.syncDirectory(layout.disk(diskId));
}

async function foldOldest(tools: MergeTools, intent: MergeIntent): Promise<void> {
  const { files, images, layout, blockBytes } = tools;
  const [oldest, ...others] = intent.remove;
  assert(oldest !== undefined && others.length === 0, 'a fold takes one point at a time');
  await retire(tools, [oldest]);
  for (const diskId of intent.diskIds) {
    const base = layerFile(layout, diskId, oldest);
    const top = layerFile(layout, diskId, intent.into);
    if (!partOf(intent, diskId).hasInto) {
      await files.remove(base.path);
    } else if ((await files.sizeOf(base.path)) !== undefined) {
      const leaves = await mergedLeaves(tools, diskId, [oldest, intent.into]);
      await files.setReadOnly(base.path, false);
      await images.commit([base, top]);
      {
        await using changed = await images.open([top]);
        const { data, zero } = await changed.ownExtents(1);
        await using result = await images.open([base], { fromDevice: true });
        await expectContent(result, leaves, unionOf(data, zero), blockBytes, `${diskId} of ${intent.into}`);
      }
      await writeLeaves(files, layout.leaves(diskId, intent.into), leaves);
      await files.setReadOnly(base.path, true);
      await files.rename(base.path, top.path);
      await files.syncDirectory(layout.disk(diskId));
    }
    await files.remove(layout.leaves(diskId, oldest));
    await files.syncDirectory(layout.disk(diskId));
  }
}

async function mergedLeaves(tools: MergeTools, diskId: string, pointIds: readonly string[]) {
  let merged: LayerLeaves | undefined;
  for (const pointId of pointIds) {
    const leaves = await readLeaves(tools.files, tools.layout.leaves(diskId, pointId));
    merged = merged ? mergeLeaves(merged, leaves) : leaves;
  }
  return merged!;
}

async function expectContent(
  reader: ImageReader,
  leaves: LayerLeaves,
  ranges: Extents,
  blockBytes: number,
  what: string,
): Promise<void> {
  const tree = new DigestTree({ sizeBytes: leaves.sizeBytes, blockBytes });
  for (const { index, digest } of leaves.leaves) tree.set(index, digest);
  const difference = await differenceFrom(reader, tree, ranges, blockBytes);
  if (!difference) return;
  throw replicaFailure(
    'REPLICA_LAYER_DAMAGED',
    `merging ${what} gave other bytes in ${difference.blocks} blocks`,
    {
      context: { what, blocks: difference.blocks, firstOffset: difference.ranges[0]?.offset ?? null },
    },
  );
}

/** The files from the oldest layer up to `pointId`, found by following our own headers' backing names. */
async function chainBelow(tools: MergeTools, diskId: string, pointId: string): Promise<ImageFile[]> {
  const { files, layout } = tools;
  const chain: ImageFile[] = [];
  for (let at: string | undefined = layerName(pointId); at !== undefined; ) {
    const path = join(layout.disk(diskId), at);
    chain.unshift({ path, format: 'qcow2' });
    const header = await readHeader(files, path);
    at = header.backing?.name;
  }
  return chain;
}

function layerFile(layout: ReplicaLayout, diskId: string, pointId: string): ImageFile {
  return { path: layout.layer(diskId, pointId), format: 'qcow2' };
}

function asidePath(layout: ReplicaLayout, diskId: string, pointId: string): string {
  return `${layout.layer(diskId, pointId)}.merged`;
}

function asideLeaves(layout: ReplicaLayout, diskId: string, pointId: string): string {
  return `${layout.leaves(diskId, pointId)}.merged`;
}

async function renameIfThere(files: FileSystem, from: string, to: string): Promise<void> {
  if ((await files.sizeOf(from)) !== undefined) await files.rename(from, to);
}
