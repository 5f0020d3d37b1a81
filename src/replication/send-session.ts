import { createHash } from 'node:crypto';
import {
  BLOCK_BYTES_DEFAULT,
  type DeltaHeader,
  type DeltaPiece,
  type DeltaProgress,
  DigestTree,
  encodeDelta,
  endBlock,
  NOTHING_RECEIVED,
} from '../delta/index.ts';
import type { ContentExtents, DiskImages, ImageFile, ImageReader } from '../hypervisor/index.ts';
import {
  differenceOf,
  type Extent,
  type Extents,
  intersectionOf,
  NO_EXTENTS,
  totalLength,
  unionOf,
} from '../lib/extents.ts';
import {
  type PointStatement,
  type SignedStatement,
  statementBytes,
  statementDigest,
  tpmSaid,
} from '../recovery-point/index.ts';
import { configurationAt } from './chain.ts';
import { type DiskDelta, GRANULARITY_BYTES, onGranularity, piecesOfDisk } from './delta-source.ts';
import { replicationFailure } from './errors.ts';
import { nameAt } from './names.ts';
import type { OlderLeaves } from './older-leaves.ts';
import type { CutRecord, MachineRecord } from './records.ts';

/** Signs point statements in the name of this site. */
export interface StatementSigner {
  readonly keyId: string;
  sign(bytes: Uint8Array): Buffer;
}

export interface SendProgress {
  readonly pointId: string;
  /** Guest bytes of the delta that have been handed to the connection, of those there are. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Of `bytesDone`, what the target had in an older copy, so that it did not cross the wire; since the connection began. */
  readonly olderBytes?: number;
}

/** By disk id: what the target has in older copies. */
export type Older = ReadonlyMap<string, OlderLeaves>;

export interface SendRequest {
  readonly images: DiskImages;
  readonly header: Omit<DeltaHeader, 'firstFrame'>;
  /** By disk id: the chain as of the cut. */
  readonly chains: Readonly<Record<string, readonly ImageFile[]>>;
  /** By disk id, for a delta upon a parent: how many layers at the end of the chain hold what changed; absent: one. */
  readonly layers?: Readonly<Record<string, number>>;
  /** By disk id: what changed besides, in layers that are no more. */
  readonly further?: Readonly<Record<string, Extents>>;
  /** By disk id: nothing else has changed, as is known otherwise. Without `layers` of the disk all of it has. */
  readonly changed?: ReadonlyMap<string, Extents>;
  /** By disk id: the tree of the parent; a disk without one is sent whole. */
  readonly trees: ReadonlyMap<string, DigestTree>;
  readonly said: SaidAnew | SaidBefore;
  readonly signal?: AbortSignal;
}

/** The point is made here: its statement is signed when all of it has been read. */
export interface SaidAnew {
  readonly signer: StatementSigner;
  /** Everything of the statement that does not follow from the content. */
  readonly about: Omit<PointStatement, 'disks' | 'digest' | 'blockBytes' | 'version'>;
  /** What the TPM held, of which `about` has the digest. */
  readonly tpmState: string | undefined;
}

/** Said already of this very point: it is repeated, if the disks read so. */
interface SaidBefore {
  readonly signed: SignedStatement;
}

/** What a delta was found to be, once all of it has been read. */
export interface SentDelta {
  readonly signed: SignedStatement;
  readonly statementDigest: string;
  readonly trees: ReadonlyMap<string, DigestTree>;
  readonly changed: ReadonlyMap<string, Extents>;
  readonly wireBytes: number;
  /** What the target had in an older copy. */
  readonly olderBytes: number;
}

/**
 * One cut, opened for sending. `stream` gives the delta as it goes onto the wire, from any frame on; it may be asked for
 * again after a broken connection. A buffer of it is valid until the next one is asked for. When a stream has been read
 * to its end, `sent` tells what it was.
 */
export class SendSession implements AsyncDisposable {
  readonly #request: SendRequest;
  readonly #readers: readonly ImageReader[];
  readonly #changes: readonly { data: Extents; zero: Extents }[];
  #bytesDone = 0;
  #olderBytes = 0;
  #sent: SentDelta | undefined;

  private constructor(
    request: SendRequest,
    readers: readonly ImageReader[],
    changes: readonly { data: Extents; zero: Extents }[],
  ) {
    this.#request = request;
    this.#readers = readers;
    this.#changes = changes;
  }

  static async open(request: SendRequest): Promise<SendSession> {
    const readers: ImageReader[] = [];
    const changes: { data: Extents; zero: Extents }[] = [];
    try {
      for (const { diskId } of request.header.disks) {
        const reader = await request.images.open(request.chains[diskId]!);
        readers.push(reader);
        const isComplete = !request.trees.has(diskId);
        const { data, zero } = await changesOf(request, diskId, reader);
        // A block that the old end of a grown disk cut short is longer now, whether the guest wrote there or not.
        const border = endBlock(request.trees.get(diskId), reader.sizeBytes);
        const read = unionOf(border, isComplete ? NO_EXTENTS : (request.further?.[diskId] ?? NO_EXTENTS));
        const changed = { data: unionOf(data, read), zero: differenceOf(zero, read) };
        changes.push(onGranularity(changed, reader.sizeBytes, request.header.granularityBytes));
      }
      return new SendSession(request, readers, changes);
    } catch (error) {
      for (const reader of readers) await reader.close();
      throw error;
    }
  }

  get progress(): SendProgress {
    const olderBytes = this.#olderBytes;
    return {
      ...{ pointId: this.#request.header.pointId, bytesDone: this.#bytesDone, bytesTotal: this.bytesTotal },
      ...(olderBytes > 0 ? { olderBytes } : {}),
    };
  }

  /** Guest bytes that changed, as far as they are not known to be zero. */
  get bytesTotal(): number {
    return this.#changes.reduce((sum, { data }) => sum + totalLength(data), 0);
  }

  /** Names what is sent: a delta of other ranges has other frames, and goes on with no session of this one. */
  get rangesDigest(): string {
    return createHash('sha256').update(JSON.stringify(this.#changes)).digest('hex');
  }

  /** Undefined until a stream has been read to its end. */
  get sent(): SentDelta | undefined {
    return this.#sent;
  }

  /** What `older` has is not sent: the target takes it from there. */
  async *stream(from: DeltaProgress, compress: boolean, older?: Older): AsyncGenerator<Uint8Array> {
    const { header, signal } = this.#request;
    const trees = this.#freshTrees();
    const pieces = this.#piecesFrom(from, trees, older);
    let wireBytes = 0;
    this.#bytesDone = 0;
    this.#olderBytes = 0;
    let signed: SignedStatement | undefined;
    const statement = () => {
      signed = this.#sign(trees);
      return signed as never;
    };
    const options = {
      compression: compress ? { zstdLevel: 1 } : ('none' as const),
      resumed: from,
      same: older !== undefined,
      ...(signal ? { signal } : {}),
    };
    for await (const buffer of encodeDelta(
      { ...header, firstFrame: from.frames },
      pieces,
      statement,
      options,
    )) {
      wireBytes += buffer.length;
      yield buffer;
    }
    this.#sent = this.#outcome(signed!, trees, wireBytes);
  }

  /** Reads the whole delta without sending it: when the target has the point already, and its digests are wanted here. */
  async readThrough(): Promise<SentDelta> {
    const trees = this.#freshTrees();
    for await (const _piece of this.#piecesFrom(NOTHING_RECEIVED, trees)) {
      // Only the digests count; the pieces are dropped.
    }
    this.#sent = this.#outcome(this.#sign(trees), trees, 0);
    return this.#sent;
  }

  #outcome(signed: SignedStatement, trees: ReadonlyMap<string, DigestTree>, wireBytes: number): SentDelta {
    const changed = this.#request.header.disks.map(({ diskId }, index) => {
      const { data, zero } = this.#changes[index]!;
      return [diskId, unionOf(data, zero)] as const;
    });
    return {
      signed,
      statementDigest: statementDigest(signed.statement),
      trees,
      changed: new Map(changed),
      wireBytes,
      olderBytes: this.#olderBytes,
    };
  }

  #freshTrees(): Map<string, DigestTree> {
    const { header, trees } = this.#request;
    return new Map(
      header.disks.map(({ diskId, sizeBytes }) => {
        const tree =
          trees.get(diskId)?.copy() ?? new DigestTree({ sizeBytes, blockBytes: BLOCK_BYTES_DEFAULT });
        tree.resize(sizeBytes);
        return [diskId, tree];
      }),
    );
  }

  /** Everything is read, because of the digests; what comes behind `from` is given. */
  async *#piecesFrom(
    from: DeltaProgress,
    trees: ReadonlyMap<string, DigestTree>,
    older?: Older,
  ): AsyncGenerator<DeltaPiece> {
    const { header, signal } = this.#request;
    for (const [diskIndex, { diskId, sizeBytes }] of header.disks.entries()) {
      const delta: DiskDelta = {
        diskIndex,
        reader: this.#readers[diskIndex]!,
        ...this.#changes[diskIndex]!,
        tree: trees.get(diskId)!,
        complete: !this.#request.trees.has(diskId),
        from: diskIndex < from.disk ? sizeBytes : diskIndex === from.disk ? from.endOffset : 0,
        older: older?.get(diskId),
      };
      if (delta.from > 0) this.#bytesDone += dataIn(delta, { offset: 0, length: delta.from });
      for await (const piece of piecesOfDisk(delta, signal)) {
        if (piece.type === 'data') this.#bytesDone += piece.data.length;
        if (piece.type === 'same') {
          this.#bytesDone += dataIn(delta, piece);
          this.#olderBytes += dataIn(delta, piece);
        }
        yield piece;
      }
    }
  }

  #sign(trees: ReadonlyMap<string, DigestTree>): SignedStatement {
    const { said, header, trees: parent } = this.#request;
    if ('signed' in said) return repeated(said.signed, trees);
    const { about, signer, tpmState } = said;
    const statement: PointStatement = {
      ...about,
      version: 1,
      digest: 'sha256',
      blockBytes: header.blockBytes,
      disks: header.disks.map(({ diskId, sizeBytes }, index) => {
        const { data, zero } = this.#changes[index]!;
        const root = trees.get(diskId)!.root().toString('hex');
        // Of a disk that is sent whole zeros are what was always there.
        const changed = parent.has(diskId) ? unionOf(data, zero) : data;
        return { diskId, sizeBytes, root, changedBytes: totalLength(changed) };
      }),
    };
    const signature = signer.sign(statementBytes(statement)).toString('base64');
    return { statement, keyId: signer.keyId, signature, ...(tpmState === undefined ? {} : { tpmState }) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const reader of this.#readers) await reader.close();
  }
}

function dataIn({ data }: DiskDelta, { offset, length }: Extent): number {
  return totalLength(intersectionOf(data, [{ offset, length }]));
}

/** What of a disk changed, by what its layers hold and by what is known otherwise, before it is put onto the granularity. */
async function changesOf(request: SendRequest, diskId: string, reader: ImageReader): Promise<ContentExtents> {
  const layers = request.layers?.[diskId];
  const known = request.changed?.get(diskId);
  if (known && layers === undefined) return { data: known, zero: NO_EXTENTS };
  if (!request.trees.has(diskId)) return reader.contentExtents();
  const own = await ownExtents(reader, layers ?? 1);
  if (!known) return own;
  return { data: intersectionOf(own.data, known), zero: intersectionOf(own.zero, known) };
}

async function ownExtents(reader: ImageReader, layers: number): Promise<ContentExtents> {
  return layers === 0 ? { data: NO_EXTENTS, zero: NO_EXTENTS } : reader.ownExtents(layers);
}

/** Throws REPLICATION_SEED_CHANGED when the disks do not read as was signed. */
function repeated(signed: SignedStatement, trees: ReadonlyMap<string, DigestTree>): SignedStatement {
  const { disks, pointId } = signed.statement;
  const other = disks.find(({ diskId, root }) => trees.get(diskId)?.root().toString('hex') !== root);
  if (!other) return signed;
  throw replicationFailure(
    'REPLICATION_SEED_CHANGED',
    `${other.diskId} does not read here as it was signed for point ${pointId}`,
    { context: { pointId, diskId: other.diskId } },
  );
}

/** The unchanging parts of every delta header that this side makes. */
export const HEADER_DEFAULTS = {
  blockBytes: BLOCK_BYTES_DEFAULT,
  granularityBytes: GRANULARITY_BYTES,
  digest: 'sha256',
} as const;

/** What the statement of a cut says that neither its content tells nor the target. */
export function saidOf(
  machine: MachineRecord,
  cut: CutRecord,
): Omit<SaidAnew['about'], 'sourceSiteId' | 'sequence' | 'parent' | 'missed'> {
  const { machineId, epoch } = machine;
  const { copyType, aim, assertions, consistency, degraded, cutAtMs, pauseMs, frozenMs, group, tpm } = cut;
  return {
    ...{ machineId, machineName: nameAt(machine, cut), pointId: cut.cutId, epoch },
    ...{ copyType, consistency, cutAtMs, pauseMs },
    configuration: configurationAt(machine, cut),
    ...(aim === undefined ? {} : { aim }),
    ...(assertions ? { assertions } : {}),
    ...(degraded === undefined ? {} : { degraded }),
    ...(frozenMs === undefined ? {} : { frozenMs }),
    ...(group ? { group } : {}),
    ...(tpm ? { tpm: tpmSaid(tpm) } : {}),
  };
}
