import { join } from 'node:path';
import { blockCount, type DigestTree, readLeaves, treeOfLayers } from '../delta/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { FileSystem } from '../lib/files.ts';
import { createEmptyLayer } from '../qcow2/index.ts';
import type { PointStatement, SignedStatement } from '../recovery-point/index.ts';
import { replicaFailure } from './errors.ts';
import type { ReplicaLayout } from './layout.ts';
import { checkOfSource, discardSession, leavesPath, type Published, publishProven } from './publication.ts';
import { layerPath } from './receive-session.ts';
import type { ReplicaRecord } from './records.ts';

/** The word of a source that the base of a machine comes by courier, and what it is. */
export interface SeedAnnouncement {
  /** Names the upload of the leaves. */
  readonly session: string;
  readonly signed: SignedStatement;
  /** Sender's clock minus ours. */
  readonly skewMs: number;
}

interface StandInTools {
  readonly files: FileSystem;
  readonly clock: Clock;
  readonly layout: ReplicaLayout;
  readonly record: ReplicaRecord;
  readonly isSignedBySource: (sourceSiteId: string, signed: SignedStatement) => boolean;
}

/** A leaves file: head, 40 bytes a block, SHA-256. */
const leavesBytesMax = (blocks: number): number => 64 + 40 * blocks;

/**
 * Publishes the first point of a replica without its content: an empty layer stands in for each of its disks, and beside it
 * lie the leaves that the source has sent, which must make the signed roots. From here on deltas can be laid on the point
 * and proven to the last block, because every delta that comes before the base brings whole blocks.
 *
 * `source` gives for each disk, in the order of the statement, eight bytes of length and a leaves file. Throws
 * REPLICA_SIGNATURE_INVALID, REPLICA_DELTA_REFUSED, REPLICA_CONTENT_DIFFERS; nothing is left then.
 */
export async function publishStandIn(
  tools: StandInTools,
  announcement: SeedAnnouncement,
  source: AsyncIterable<Uint8Array>,
): Promise<Published> {
  const { files, layout } = tools;
  const { signed, skewMs, session } = announcement;
  const statement = checkAnnounced(tools, signed);
  const directory = layout.session(session);
  try {
    await files.makeDirectory(directory);
    const bytes = new ByteSource(source);
    const trees = new Map<string, DigestTree>();
    for (const { diskId } of statement.disks) {
      trees.set(diskId, await takeLeaves(files, leavesPath(directory, diskId), bytes, statement, diskId));
    }
    if (!(await bytes.hasEnded())) throw refused('bytes follow the leaves');
    for (const { diskId, sizeBytes } of statement.disks) {
      const shape = { sizeBytes, backing: null };
      await createEmptyLayer(files, layerPath(directory, diskId), shape, { sync: true });
    }
    await files.syncDirectory(directory);
    const about = { signed, skewMs, receivedBytes: bytes.taken, seed: 'awaited' as const };
    const manifest = await publishProven(tools, session, about);
    return { statement, manifest, trees };
  } catch (error) {
    // What was decided upon is ended by whoever reads the directory next; before that there is nothing worth keeping.
    if ((await files.sizeOf(join(directory, 'verified.json'))) === undefined)
      await discardSession(files, layout, session);
    throw error;
  }
}

function checkAnnounced({ record, isSignedBySource }: StandInTools, raw: SignedStatement): PointStatement {
  const what = 'the statement of an announced seed';
  const { statement } = checkOfSource(raw, what, { of: record, isSignedBySource });
  const { machineId, epoch, parent, sequence, blockBytes } = statement;
  const isFirst = parent === null && sequence === 1 && blockBytes === 65_536;
  if (machineId === record.machineId && epoch === record.epoch && isFirst) return statement;
  throw refused('it is not the first point of this machine');
}

async function takeLeaves(
  files: FileSystem,
  path: string,
  source: ByteSource,
  statement: PointStatement,
  diskId: string,
): Promise<DigestTree> {
  const { sizeBytes, root } = statement.disks.find((disk) => disk.diskId === diskId)!;
  const length = Number((await source.take(8)).readBigUInt64BE());
  const max = leavesBytesMax(blockCount(sizeBytes, statement.blockBytes));
  if (length > max) throw refused(`${length} bytes of leaves for ${diskId}, at most ${max} are possible`);
  await files.remove(path);
  const file = await files.open(path, 'create');
  try {
    let at = 0;
    for await (const chunk of source.takeMany(length)) {
      await file.write(chunk, at);
      at += chunk.length;
    }
    await file.sync();
  } finally {
    await file.close();
  }
  const leaves = await readLeaves(files, path);
  const isOfDisk =
    leaves.sizeBytes === sizeBytes &&
    leaves.blockBytes === statement.blockBytes &&
    leaves.inheritedBlocks === 0;
  const tree = isOfDisk ? treeOfLayers([leaves]) : undefined;
  if (tree?.root().toString('hex') === root) return tree;
  throw replicaFailure('REPLICA_CONTENT_DIFFERS', `the leaves of ${diskId} do not make the signed root`, {
    context: { pointId: statement.pointId, diskId },
  });
}

function refused(why: string): Error {
  return replicaFailure('REPLICA_DELTA_REFUSED', `an announced seed was refused: ${why}`);
}

/** Bytes of a stream by count. */
class ByteSource {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #left: Buffer = Buffer.alloc(0);
  taken = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  /** For small counts. */
  async take(count: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const part of this.takeMany(count)) parts.push(Buffer.from(part));
    return Buffer.concat(parts);
  }

  async *takeMany(count: number): AsyncGenerator<Buffer> {
    for (let due = count; due > 0; ) {
      if (this.#left.length === 0 && !(await this.#more())) throw refused('the leaves end too early');
      const part = this.#left.subarray(0, due);
      this.#left = this.#left.subarray(part.length);
      this.taken += part.length;
      due -= part.length;
      yield part;
    }
  }

  async hasEnded(): Promise<boolean> {
    return this.#left.length === 0 && !(await this.#more());
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const next = await this.#chunks.next();
      if (next.done) return false;
      this.#left = Buffer.from(next.value);
      if (this.#left.length > 0) return true;
    }
  }
}
