import { dirname, join } from 'node:path';
import {
  blockLength,
  blocksIn,
  type DeltaHeader,
  DigestTree,
  endBlock,
  inheritedBlocks,
  type LayerLeaves,
  leavesIn,
  writeLeaves,
  zeroBlockDigest,
} from '../delta/index.ts';
import type { DiskImages, ImageFile } from '../hypervisor/index.ts';
import { canonicalJson } from '../lib/canonical-json.ts';
import type { Clock } from '../lib/clock.ts';
import {
  alignInward,
  alignOutward,
  differenceOf,
  type Extents,
  extentsOf,
  intersectionOf,
  NO_EXTENTS,
  totalLength,
  unionOf,
} from '../lib/extents.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import {
  checkSignedStatement,
  type PointStatement,
  type SignedStatement,
  tpmStateOf,
} from '../recovery-point/index.ts';
import { digestsOf } from './content.ts';
import type { Incoming } from './description.ts';
import { replicaFailure } from './errors.ts';
import { FrameLog, progressOf } from './frame-log.ts';
import type { ReplicaLayout } from './layout.ts';
import { layerPath, type ReceiveSession } from './receive-session.ts';
import {
  INCOMING_RECORD,
  manifestKind,
  type PointManifest,
  type ReplicaRecord,
  VERIFIED_RECORD,
  verifiedKind,
} from './records.ts';

export interface PublishRequest {
  readonly files: FileSystem;
  readonly images: DiskImages;
  readonly clock: Clock;
  readonly layout: ReplicaLayout;
  readonly session: ReceiveSession;
  readonly signed: SignedStatement;
  readonly receivedBytes: number;
  readonly of: Pick<ReplicaRecord, 'sourceSiteId' | 'viaSiteId'>;
  readonly isSignedBySource: (sourceSiteId: string, signed: SignedStatement) => boolean;
  readonly parent: PointStatement | null;
  readonly parentChain: (diskId: string) => ImageFile[];
  readonly trees: ReadonlyMap<string, DigestTree>;
}

export interface Published {
  readonly statement: PointStatement;
  readonly manifest: PointManifest;
  readonly trees: ReadonlyMap<string, DigestTree>;
}

/**
 * Makes a point of a delta that has arrived whole. The order is the promise: signature → layers durable → read back
 * and compared → digests durable → `verified.json` → layers under their names → manifest under its name. A process
 * that dies before `verified.json` starts the delta over; one that dies after it only has renames left to do.
 */
export async function publishReceived(request: PublishRequest): Promise<Published> {
  const { session } = request;
  const { statement } = checkStatement(request);
  // With the log complete, a publication that fails for want of space or of a tool is gone on with, not begun anew.
  await session.checkpoint();
  await session.finish();
  const trees = new Map<string, DigestTree>();
  for (const [index, disk] of statement.disks.entries()) {
    const tree = await verifyDisk(request, statement, index);
    if (tree.root().toString('hex') !== disk.root) {
      throw replicaFailure(
        'REPLICA_CONTENT_DIFFERS',
        `${disk.diskId} of ${statement.pointId} is not what was signed`,
        {
          context: { pointId: statement.pointId, diskId: disk.diskId },
        },
      );
    }
    trees.set(disk.diskId, tree);
  }
  const { signed, receivedBytes } = request;
  const { skewMs } = session;
  const olderBytes = totalLength(session.applied.filter(({ isOlder }) => isOlder));
  const manifest = await publishProven(request, session.header.session, {
    ...{ signed, skewMs, receivedBytes },
    ...(olderBytes > 0 ? { olderBytes } : {}),
  });
  return { statement, manifest, trees };
}

/**
 * Makes a point of a session whose files are durable and proven: `verified.json` decides it, the renames are what is left.
 */
export async function publishProven(
  { files, clock, layout }: Pick<PublishRequest, 'files' | 'clock' | 'layout'>,
  session: string,
  about: Pick<PointManifest, 'signed' | 'skewMs' | 'receivedBytes' | 'olderBytes' | 'seed'>,
): Promise<PointManifest> {
  const { cutAtMs } = about.signed.statement;
  const publishedAtMs = clock.wallMs();
  const cutAtHereMs = cutAtHere({ cutAtMs, skewMs: about.skewMs, nowMs: publishedAtMs });
  const manifest: PointManifest = { ...about, publishedAtMs, cutAtHereMs };
  const path = join(layout.session(session), 'verified.json');
  await storeRecord(files, path, verifiedKind(manifest), manifest);
  await publishVerified(files, layout, session, manifest);
  return manifest;
}

/**
 * When a point was cut, on our clock; `skewMs`: the sender's clock minus ours. A sender's clock that was set between cut and offer
 * makes no point younger than it can be. Pure.
 */
export function cutAtHere(o: {
  readonly cutAtMs: number;
  readonly skewMs: number;
  readonly nowMs: number;
}): number {
  return Math.max(0, Math.round(Math.min(o.cutAtMs - o.skewMs, o.nowMs)));
}

/**
 * A statement in the form of one, signed by the site that replicates here, with what it says that the TPM held. Throws
 * REPLICA_SIGNATURE_INVALID, POINT_STATEMENT_INVALID.
 */
export function checkOfSource(
  raw: SignedStatement,
  what: string,
  { of: { sourceSiteId }, isSignedBySource }: Pick<PublishRequest, 'of' | 'isSignedBySource'>,
): SignedStatement {
  const signed = checkSignedStatement(raw, what);
  tpmStateOf(signed);
  const { statement, keyId } = signed;
  if (statement.sourceSiteId === sourceSiteId && isSignedBySource(sourceSiteId, signed)) return signed;
  const { pointId } = statement;
  throw replicaFailure('REPLICA_SIGNATURE_INVALID', `the statement of ${pointId} is not signed by its site`, {
    context: { pointId, keyId },
  });
}

function checkStatement(request: PublishRequest): SignedStatement {
  const { header } = request.session;
  const signed = checkOfSource(request.signed, `the statement of ${header.pointId}`, request);
  const { statement } = signed;
  const saysOf = (
    words: Pick<PointStatement, 'machineId' | 'pointId' | 'sequence' | 'epoch' | 'blockBytes'>,
  ) => [words.machineId, words.pointId, words.sequence, words.epoch, words.blockBytes] as const;
  const sizesOf = (disks: readonly { diskId: string; sizeBytes: number }[]) =>
    disks.map(({ diskId, sizeBytes }) => [diskId, sizeBytes] as const);
  const isSame =
    canonicalJson(saysOf(statement)) === canonicalJson(saysOf(header)) &&
    followsAsSaid(statement, header, request) &&
    canonicalJson(sizesOf(statement.disks)) === canonicalJson(sizesOf(header.disks));
  if (isSame) return signed;
  throw replicaFailure(
    'REPLICA_DELTA_REFUSED',
    `the statement of ${header.pointId} speaks of another point`,
    {
      context: { pointId: header.pointId },
    },
  );
}

/**
 * Whether a delta lies where its statement says. Of forwarded points retention may have taken some between the two: then only
 * their order can be checked, as between neighbours in a directory; that the content is right is told by the roots. Pure.
 */
function followsAsSaid(
  { parent, sequence }: Pick<PointStatement, 'parent' | 'sequence'>,
  header: Pick<DeltaHeader, 'parent'>,
  { of: { viaSiteId }, parent: below }: Pick<PublishRequest, 'of' | 'parent'>,
): boolean {
  const isSame = canonicalJson(parent) === canonicalJson(header.parent);
  if (isSame || viaSiteId === undefined) return isSame;
  return below === null || sequence > below.sequence + 1;
}

/** Reads the new layer back through its whole chain; returns the tree that the disk now has. Writes its leaves file. */
export async function verifyDisk(
  request: Pick<PublishRequest, 'files' | 'images' | 'session' | 'trees' | 'parentChain'>,
  statement: PointStatement,
  index: number,
): Promise<DigestTree> {
  const { files, images, session } = request;
  const { diskId, sizeBytes } = statement.disks[index]!;
  const { blockBytes } = statement;
  const ranges = appliedRanges(session, index);
  const older = request.trees.get(diskId);
  const tree = older ? older.copy() : new DigestTree({ sizeBytes, blockBytes });
  tree.resize(sizeBytes);
  const layer = { path: session.layerPath(diskId), format: 'qcow2' as const };
  await using reader = await images.open([...request.parentChain(diskId), layer], { fromDevice: true });
  const zero = session.applied.some((frame) => frame.disk === index && frame.kind === 'zero')
    ? alignInward((await reader.ownExtents(1)).zero, blockBytes, sizeBytes)
    : NO_EXTENTS;
  const aligned = alignOutward(unionOf(ranges, endBlock(older, sizeBytes)), blockBytes, sizeBytes);
  // Zeros are not stored: a reader makes them up from the same tables that it is asked about here.
  const isZero = intersectionOf(aligned, zero);
  for (const block of blocksIn(isZero, blockBytes))
    tree.set(block, zeroBlockDigest(blockLength(sizeBytes, blockBytes, block)));
  const toRead = differenceOf(aligned, isZero);
  for await (const { index: block, digest } of digestsOf(reader, toRead, blockBytes)) tree.set(block, digest);
  const leaves: LayerLeaves = {
    sizeBytes,
    blockBytes,
    inheritedBlocks: inheritedBlocks(older?.sizeBytes ?? null, sizeBytes, blockBytes),
    leaves: leavesIn(tree, aligned),
  };
  await writeLeaves(files, leavesPath(session.directory, diskId), leaves);
  return tree;
}

function appliedRanges(session: ReceiveSession, diskIndex: number): Extents {
  return extentsOf(session.applied.filter(({ disk }) => disk === diskIndex));
}

export function leavesPath(directory: string, diskId: string): string {
  return join(directory, `${diskId}.leaves`);
}

/** The renames of a publication. May be repeated from any point. */
async function publishVerified(
  files: FileSystem,
  layout: ReplicaLayout,
  session: string,
  manifest: PointManifest,
): Promise<void> {
  const { statement } = manifest.signed;
  const directory = layout.session(session);
  for (const { diskId } of statement.disks) {
    await files.makeDirectory(layout.disk(diskId));
    await files.syncDirectory(layout.disks);
    await publishOne(files, layerPath(directory, diskId), layout.layer(diskId, statement.pointId));
    await publishOne(files, leavesPath(directory, diskId), layout.leaves(diskId, statement.pointId));
    await files.syncDirectory(layout.disk(diskId));
  }
  await storeRecord(files, layout.manifest(statement.pointId), manifestKind(manifest), manifest);
  await discardSession(files, layout, session);
}

export async function publishOne(files: FileSystem, from: string, to: string): Promise<void> {
  if ((await files.sizeOf(from)) === undefined) return; // Renamed before the process died.
  await files.setReadOnly(from, true);
  await files.rename(from, to);
}

/** Ends publications that a killed process left behind `verified.json`. */
export async function finishPublication(files: FileSystem, layout: ReplicaLayout): Promise<void> {
  for (const session of (await files.list(layout.incoming)) ?? []) {
    const manifest = await loadRecord(files, join(layout.session(session), 'verified.json'), VERIFIED_RECORD);
    // It may be known to the page cache alone, and after the first rename there is no way back without it.
    if (manifest) await files.syncDirectory(layout.session(session));
    if (manifest) await publishVerified(files, layout, session, manifest);
  }
}

/** Throws away a delta that was on its way in. `verified.json` goes first: half a directory must not publish. */
export async function discardSession(
  files: FileSystem,
  layout: ReplicaLayout,
  session: string,
): Promise<void> {
  const directory = layout.session(session);
  if ((await files.list(directory)) === undefined) return;
  await files.remove(join(directory, 'verified.json'));
  await files.syncDirectory(directory);
  await files.removeDirectory(directory);
  await files.syncDirectory(dirname(directory));
}

/** The session that can be gone on with: the one for a child of the newest point. Others are swept. */
export async function findSession(
  files: FileSystem,
  layout: ReplicaLayout,
  newestPointId: string | null,
): Promise<Incoming | null> {
  let found: Incoming | null = null;
  for (const session of (await files.list(layout.incoming)) ?? []) {
    const record = await loadRecord(files, join(layout.session(session), 'session.json'), INCOMING_RECORD);
    const header = record?.header as DeltaHeader | undefined;
    const fits = header && (header.parent?.pointId ?? null) === newestPointId;
    if (!fits || found) {
      await discardSession(files, layout, session);
      continue;
    }
    const { log, applied } = await FrameLog.open(files, join(layout.session(session), 'frames'));
    await log.close();
    found = { session, pointId: header.pointId, progress: progressOf(applied) };
  }
  return found;
}
