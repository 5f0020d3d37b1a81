import { createHash } from 'node:crypto';
import { join } from 'node:path';
import {
  DATA_FRAME_BYTES_MAX,
  type DeltaHeader,
  DigestTree,
  decodeDelta,
  NOTHING_RECEIVED,
} from '../delta/index.ts';
import type { DiskImages, ImageFile } from '../hypervisor/index.ts';
import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { throwIfAborted } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { observed } from '../lib/streams.ts';
import type { PointStatement } from '../recovery-point/index.ts';
import { digestsOf } from './content.ts';
import type { ReplicaPoint } from './description.ts';
import { replicaFailure } from './errors.ts';
import type { ReplicaLayout } from './layout.ts';
import { leavesPath, publishOne, verifyDisk } from './publication.ts';
import { layerPath, ReceiveSession } from './receive-session.ts';
import { INCOMING_RECORD, manifestKind, POINT_MANIFEST, SEED_INTENT, type SeedIntent } from './records.ts';
import { damaged, type SeedFile, seedHeader } from './seed-file.ts';

export interface SeedProgress {
  readonly step: 'reading' | 'verifying';
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface ImportOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SeedProgress) => void) | undefined;
}

interface ImportTools {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly layout: ReplicaLayout;
}

/** Throws REPLICA_SEED_REFUSED unless the seed is one that these points await. */
export function checkAwaited(
  seed: SeedFile,
  points: readonly ReplicaPoint[],
  machineName: string,
): ReplicaPoint {
  const { pointId, sequence } = seed.statement;
  const point = points.find(({ statement }) => statement.pointId === pointId);
  if (point?.statementDigest === seed.statementDigest) return point;
  const awaited = points
    .filter(({ manifest }) => manifest.seed !== undefined)
    .map(({ statement }) => statement);
  const said = awaited.map((statement) => `${statement.sequence} (${statement.pointId})`).join(' or ');
  throw refused(
    seed,
    point
      ? `it says of point ${pointId} something else than its site has signed`
      : `it is of point ${sequence} (${pointId}), and ${machineName} awaits one of point ${said}`,
  );
}

export function refused(seed: SeedFile, why: string): Error {
  const { machineId, pointId } = seed.statement;
  return replicaFailure('REPLICA_SEED_REFUSED', `the seed ${seed.path} was refused: ${why}`, {
    context: { path: seed.path, machineId, pointId, reason: why },
  });
}

/**
 * Reads a seed into `seed/` and proves it: the layers are durable, read back through QEMU, and make the roots that the
 * statement of the point has. Goes on where an earlier call was interrupted. Nothing that is published is touched. What
 * does not fit is thrown away. Throws REPLICA_SEED_DAMAGED, REPLICA_SEED_REFUSED, and failures of the disk.
 */
export async function receiveSeed(
  tools: ImportTools,
  seed: SeedFile,
  o: ImportOptions,
  nowMs: number,
): Promise<void> {
  const { files, layout } = tools;
  const opened: ReceiveSession[] = [];
  try {
    const session = await readStream(seed, o, async (header) => {
      checkHeader(seed, header);
      const session = await openSession(tools, header, nowMs);
      opened.push(session);
      return session;
    });
    await session.finish();
    for (const [index, disk] of seed.statement.disks.entries()) {
      throwIfAborted(o.signal);
      const nothingBelow = { ...tools, session, trees: new Map<string, DigestTree>(), parentChain: () => [] };
      const tree = await verifyDisk(nothingBelow, seed.statement, index);
      if (tree.root().toString('hex') !== disk.root) {
        throw damaged(seed.path, `${disk.diskId} is not what was signed`);
      }
    }
    await files.syncDirectory(layout.seed);
  } catch (error) {
    for (const session of opened.splice(0)) await session.release();
    // What was interrupted, also by a medium that was pulled out, is gone on with.
    const isLost = !isFailure(error) || error.kind === 'corrupt' || error.kind === 'refused';
    if (isLost) await discardSeed(files, layout);
    throw error;
  }
  for (const session of opened) await session.release();
}

/** Takes every frame that is not durable yet, and makes all durable; the whole file is read and checked in any case. */
async function readStream(
  seed: SeedFile,
  o: ImportOptions,
  open: (header: DeltaHeader) => Promise<ReceiveSession>,
): Promise<ReceiveSession> {
  const { streamBytes, streamSha256 } = seed.manifest;
  const hash = createHash('sha256');
  let bytesDone = 0;
  const counted = observed(seed.stream(), (chunk) => {
    hash.update(chunk);
    bytesDone += chunk.length;
    o.onProgress?.({ step: 'reading', bytesDone, bytesTotal: streamBytes });
  });
  let session: ReceiveSession | undefined;
  try {
    const { header, frames } = await decodeDelta(counted, {
      memory: Buffer.allocUnsafeSlow(DATA_FRAME_BYTES_MAX),
      received: NOTHING_RECEIVED,
      ...(o.signal ? { signal: o.signal } : {}),
    });
    session = await open(header);
    for await (const frame of frames) {
      if (frame.type === 'same') throw damaged(seed.path, 'it is not complete by itself');
      if (frame.type !== 'trailer' && frame.number >= session.durable.frames) await session.apply(frame);
    }
    if (hash.digest('hex') !== streamSha256) throw damaged(seed.path, 'its SHA-256 is wrong');
    await session.checkpoint();
    return session;
  } catch (error) {
    const isOfStream = isFailure(
      error,
      ...(['DELTA_NOT_A_DELTA', 'DELTA_CORRUPT', 'DELTA_INVALID', 'DELTA_TRUNCATED', 'DELTA_LIMIT'] as const),
    );
    if (isOfStream) throw damaged(seed.path, error.message, error);
    // Layers that cannot be written say so again; then there is nothing to go on with.
    if (session && isFailure(error, 'CANCELLED', 'FILE_UNREADABLE')) await session.checkpoint();
    throw error;
  }
}

/** A stream of one seed with the end of another. */
function checkHeader(seed: SeedFile, header: DeltaHeader): void {
  const { granularityBytes: _any, ...arrived } = header;
  if (
    canonicalJson(arrived as unknown as Json) === canonicalJson(seedHeader(seed.manifest) as unknown as Json)
  )
    return;
  throw refused(
    seed,
    `its stream is of point ${header.pointId} of machine ${header.machineId}, its manifest of another`,
  );
}

async function openSession(
  { files, layout }: ImportTools,
  header: DeltaHeader,
  nowMs: number,
): Promise<ReceiveSession> {
  const directory = layout.seed;
  const known = await loadRecord(files, join(directory, 'session.json'), INCOMING_RECORD);
  const isSame = known && canonicalJson(known.header as Json) === canonicalJson(header as unknown as Json);
  if (isSame) {
    try {
      return await ReceiveSession.open({ files, directory });
    } catch (error) {
      if (!isFailure(error, 'QCOW2_RESUME_MISMATCH')) throw error;
    }
  }
  await discardSeed(files, layout);
  return ReceiveSession.create({ files, directory, header, nowMs, skewMs: 0 });
}

async function discardSeed(files: FileSystem, layout: ReplicaLayout): Promise<void> {
  await files.removeDirectory(layout.seed);
  await files.syncDirectory(layout.directory);
}

/**
 * Proves a point on the base that has been read into `seed/` before that is put under it: its whole chain is read through
 * QEMU, and must make the signed roots. `chainOf` gives what a disk is then, the base first.
 */
export async function proveOnSeed(
  { images }: Pick<ImportTools, 'images'>,
  statement: PointStatement,
  chainOf: (diskId: string) => readonly ImageFile[],
  o: ImportOptions,
): Promise<void> {
  const { blockBytes, disks } = statement;
  const bytesTotal = disks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let before = 0;
  for (const { diskId, sizeBytes, root } of disks) {
    await using reader = await images.open(chainOf(diskId), { fromDevice: true });
    const tree = new DigestTree({ sizeBytes, blockBytes });
    const { data } = await reader.contentExtents();
    for await (const { index, digest } of digestsOf(reader, data, blockBytes, o.signal)) {
      tree.set(index, digest);
      o.onProgress?.({ step: 'verifying', bytesDone: before + index * blockBytes, bytesTotal });
    }
    before += sizeBytes;
    if (tree.root().toString('hex') === root) continue;
    const { pointId } = statement;
    throw replicaFailure(
      'REPLICA_LAYER_DAMAGED',
      `${diskId} of ${pointId} on the imported seed is not what was signed`,
      { context: { pointId, diskId } },
    );
  }
}

/** Puts the base under the points: decided durably first, then done. May be repeated from any step by `redoRebase`. */
export async function rebase(
  tools: Pick<ImportTools, 'files' | 'layout'>,
  intent: SeedIntent,
): Promise<void> {
  const { files, layout } = tools;
  await files.makeDirectory(layout.intents);
  await storeRecord(files, intentPath(layout), SEED_INTENT, intent);
  await carryOut(tools, intent);
}

/** Ends what a killed process left half done. */
export async function redoRebase(files: FileSystem, layout: ReplicaLayout): Promise<void> {
  const intent = await loadRecord(files, intentPath(layout), SEED_INTENT);
  if (intent) await carryOut({ files, layout }, intent);
}

async function carryOut(
  { files, layout }: Pick<ImportTools, 'files' | 'layout'>,
  intent: SeedIntent,
): Promise<void> {
  const { pointId, remove, diskIds } = intent;
  for (const diskId of diskIds) {
    await publishOne(files, layerPath(layout.seed, diskId), layout.layer(diskId, pointId));
    await publishOne(files, leavesPath(layout.seed, diskId), layout.leaves(diskId, pointId));
    await files.syncDirectory(layout.disk(diskId));
  }
  const manifest = await loadRecord(files, layout.manifest(pointId), POINT_MANIFEST);
  if (manifest?.seed !== undefined) {
    const { seed: _come, ...whole } = manifest;
    await storeRecord(files, layout.manifest(pointId), manifestKind(whole), whole);
  }
  // The stand-in goes last: as long as it is the oldest point, nobody takes what lies upon it for whole.
  for (const gone of [...remove].reverse()) {
    await files.remove(layout.manifest(gone));
    await files.syncDirectory(layout.points);
  }
  for (const diskId of diskIds) {
    for (const gone of remove) {
      await files.remove(layout.layer(diskId, gone));
      await files.remove(layout.leaves(diskId, gone));
    }
    await files.syncDirectory(layout.disk(diskId));
  }
  await discardSeed(files, layout);
  await files.remove(intentPath(layout));
  await files.syncDirectory(layout.intents);
}

function intentPath(layout: ReplicaLayout): string {
  return join(layout.intents, 'seed.json');
}
