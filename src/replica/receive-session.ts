import { dirname, join } from 'node:path';
import type { DeltaDataFrame, DeltaHeader, DeltaProgress, DeltaZeroFrame } from '../delta/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import { LayerWriter } from '../qcow2/index.ts';
import { replicaFailure } from './errors.ts';
import { type AppliedFrame, FrameLog, progressOf } from './frame-log.ts';
import { layerName } from './layout.ts';
import { INCOMING_RECORD, incomingKind } from './records.ts';

/** Frames are made durable after this much data at the latest; what comes after is sent again when a process dies. */
const CHECKPOINT_BYTES = 256 * 1024 * 1024;
const CHECKPOINT_FRAMES = 8192;

/**
 * A delta on its way in: a directory (`incoming/<session>/`, or `seed/` for one that a courier brings) with one unfinished layer for each disk and the log of the frames
 * that are durable in them. It can be left at any frame and taken up again, also by another process.
 */
export class ReceiveSession {
  readonly header: DeltaHeader;
  readonly directory: string;
  readonly skewMs: number;
  readonly #files: FileSystem;
  readonly #writers: readonly LayerWriter[];
  readonly #log: FrameLog;
  readonly #applied: AppliedFrame[];
  #durable: DeltaProgress;
  /** A checkpoint that goes on beside the receiving; its failure is kept for the next call. */
  #underWay: Promise<Error | undefined> | undefined;
  #bytesSinceCheckpoint = 0;
  /** What ended the writing: a layer that failed says so once, and this session as often as it is asked. */
  #failure: { readonly error: unknown } | undefined;

  private constructor(o: {
    header: DeltaHeader;
    directory: string;
    skewMs: number;
    files: FileSystem;
    writers: readonly LayerWriter[];
    log: FrameLog;
    applied: AppliedFrame[];
  }) {
    this.header = o.header;
    this.directory = o.directory;
    this.skewMs = o.skewMs;
    this.#files = o.files;
    this.#writers = o.writers;
    this.#log = o.log;
    this.#applied = o.applied;
    this.#durable = progressOf(o.applied);
  }

  /** Makes the directory of a new session; its record is durable on return. */
  static async create(o: {
    files: FileSystem;
    directory: string;
    header: DeltaHeader;
    nowMs: number;
    skewMs: number;
    /** Disks that the parent does not have. */
    begins?: readonly string[];
  }): Promise<ReceiveSession> {
    const { files, directory, header, begins } = o;
    await files.makeDirectory(directory);
    const record = {
      header: { ...header, firstFrame: 0 },
      createdAtMs: o.nowMs,
      skewMs: o.skewMs,
      ...(begins?.length ? { begins: [...begins] } : {}),
    };
    await storeRecord(files, join(directory, 'session.json'), incomingKind(record), record);
    await files.syncDirectory(dirname(directory));
    return ReceiveSession.open({ files, directory });
  }

  /** Opens a session at its last durable frame. */
  static async open(o: { files: FileSystem; directory: string }): Promise<ReceiveSession> {
    const { files, directory } = o;
    const record = await loadRecord(files, join(directory, 'session.json'), INCOMING_RECORD);
    if (!record) throw replicaFailure('REPLICA_SESSION_UNKNOWN', `there is no session in ${directory}`);
    const header = record.header as DeltaHeader;
    const { log, applied } = await FrameLog.open(files, join(directory, 'frames'));
    const writers: LayerWriter[] = [];
    try {
      for (const [index, disk] of header.disks.entries()) {
        const path = layerPath(directory, disk.diskId);
        const shape = {
          sizeBytes: disk.sizeBytes,
          backing:
            header.parent && !record.begins?.includes(disk.diskId)
              ? { name: layerName(header.parent.pointId), format: 'qcow2' as const }
              : null,
        };
        const own = applied.filter((frame) => frame.disk === index);
        if (own.length > 0) {
          writers.push(await LayerWriter.resume(files, path, shape, own));
        } else {
          await files.remove(path);
          writers.push(await LayerWriter.create(files, path, shape));
        }
      }
    } catch (error) {
      for (const writer of writers) await writer[Symbol.asyncDispose]();
      await log.close();
      throw error;
    }
    return new ReceiveSession({ header, directory, skewMs: record.skewMs, files, writers, log, applied });
  }

  /** What is durable here: where a resumed stream begins. */
  get durable(): DeltaProgress {
    return this.#durable;
  }

  get applied(): readonly AppliedFrame[] {
    return this.#applied;
  }

  /**
   * Takes the next frame of the stream; the decoder has checked that it may come. Its data may be overwritten on return.
   * `isOlder`: an older copy has given the data.
   * The layer writes behind its caller, so that the wire does not wait for each write; a write that failed is thrown by
   * a later call.
   */
  async apply(frame: DeltaDataFrame | DeltaZeroFrame, isOlder = false): Promise<void> {
    this.#throwIfFailed();
    const length = frame.type === 'data' ? frame.data.length : frame.length;
    const writer = this.#writers[frame.disk]!;
    await this.#orFailed(async () => {
      if (frame.type === 'data') await writer.write(frame.offset, frame.data);
      else await writer.zero(frame.offset, length);
    });
    const { type: kind, disk, offset } = frame;
    this.#applied.push({ kind, disk, offset, length, ...(isOlder ? { isOlder } : {}) });
    this.#bytesSinceCheckpoint += frame.type === 'data' ? length : 0;
    await this.#checkpointNowAndThen();
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure.error;
  }

  async #orFailed(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    }
  }

  /** Syncing goes on beside the receiving; only a disk that falls two checkpoints behind holds the stream up. */
  async #checkpointNowAndThen(): Promise<void> {
    const frames = this.#applied.length - this.#durable.frames;
    const isDue = this.#bytesSinceCheckpoint >= CHECKPOINT_BYTES || frames >= CHECKPOINT_FRAMES;
    if (!isDue) return;
    if (this.#underWay) {
      const isFarBehind =
        this.#bytesSinceCheckpoint >= 2 * CHECKPOINT_BYTES || frames >= 3 * CHECKPOINT_FRAMES;
      if (isFarBehind) await this.#endOfUnderWay();
      return;
    }
    const underWay = this.#makeDurable().then(
      () => undefined,
      (error: Error) => error,
    );
    this.#underWay = underWay;
    void underWay.then((error) => {
      if (!error && this.#underWay === underWay) this.#underWay = undefined;
    });
  }

  async #endOfUnderWay(): Promise<void> {
    const error = await this.#underWay;
    if (error) throw error;
    this.#underWay = undefined;
  }

  /** Makes every frame applied so far durable: layers first, then the log that vouches for them. */
  async checkpoint(): Promise<void> {
    this.#throwIfFailed();
    await this.#endOfUnderWay();
    await this.#makeDurable();
  }

  async #makeDurable(): Promise<void> {
    const fresh = this.#applied.slice(this.#durable.frames);
    this.#bytesSinceCheckpoint = 0;
    await this.#orFailed(async () => {
      for (const writer of this.#writers) await writer.sync();
    });
    await this.#log.append(fresh, this.#durable.frames);
    this.#durable = progressOf(fresh, this.#durable);
  }

  /** Ends the layers: complete, durable image files on return. */
  async finish(): Promise<void> {
    this.#throwIfFailed();
    await this.#endOfUnderWay();
    for (const writer of this.#writers) await writer.finish();
    await this.#files.syncDirectory(this.directory);
  }

  /** Lets go of the files; what is durable stays for a later `open`. */
  async release(): Promise<void> {
    await this.#underWay;
    for (const writer of this.#writers) await writer[Symbol.asyncDispose]();
    await this.#log.close();
  }

  layerPath(diskId: string): string {
    return layerPath(this.directory, diskId);
  }
}

/** Where the layer of a disk lies until it is published: in the directory of its session, or of the seed. */
export function layerPath(directory: string, diskId: string): string {
  return join(directory, `${diskId}.layer`);
}
