import { dirname } from 'node:path';
import { assert } from '../lib/assert.ts';
import { messageOf } from '../lib/errors.ts';
import type { FileHandle, FileSystem } from '../lib/files.ts';
import { qcow2Failure } from './errors.ts';
import { LayerAllocation, type LayerOperation } from './layer-allocation.ts';
import { eraseFixedParts, writeHeader, writeTables } from './layer-metadata.ts';
import { checkShape, type LayerShape } from './layer-shape.ts';
import { RunWriter } from './run-writer.ts';

/**
 * Writes one layer from front to back.
 *
 * Use: `write` and `zero` in ascending guest order, without overlap, each starting at a multiple of 4 KiB and
 * ending at one or at the end of the disk; `sync` wherever a durable state is wanted; `finish` once. One call
 * at a time: the next only after the promise of the last has settled. Breaking these rules is a programmer's
 * error and asserts.
 *
 * Until `finish` the file has no magic and cannot be taken for an image. Disposing of an unfinished writer
 * closes the file and leaves it in place for `resume`.
 *
 * Failures of the file system (DISK_FULL, FILE_UNWRITABLE, FSYNC_FAILED) end the writer: every later call is
 * QCOW2_WRITER_FAILED. What was durable before stays so, and `resume` continues from it. After FSYNC_FAILED
 * only operations of an earlier successful `sync` count, however much of the later ones can still be read.
 *
 * Data is written behind the caller and past the page cache; see `RunWriter`. A write that failed is thrown by a later
 * call, `sync` and `finish` at the latest.
 *
 * Memory: one L2 table (128 KiB), some 50 bytes for each GiB of the disk in which something was written, and up to
 * 4 MiB of data between two syncs.
 */
export class LayerWriter implements AsyncDisposable {
  readonly #path: string;
  readonly #shape: LayerShape;
  readonly #file: FileHandle;
  readonly #runs: RunWriter;
  readonly #allocation: LayerAllocation;
  #state: 'open' | 'failed' | 'closed' = 'open';
  /** The operation under way; never rejects, since its outcome belongs to its caller. */
  #current: Promise<void> | undefined;
  /** The sync under way; never rejects either. */
  #syncing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #firstFailure: unknown;

  private constructor(path: string, shape: LayerShape, file: FileHandle, allocation: LayerAllocation) {
    this.#path = path;
    this.#shape = shape;
    this.#file = file;
    this.#runs = new RunWriter(file);
    this.#allocation = allocation;
  }

  /**
   * Begins a layer under a name that must not exist. The name is durable on return, the file empty.
   *
   * Failures: QCOW2_SHAPE_UNSUPPORTED, QCOW2_BACKING_REFUSED; those of `FileSystem`.
   */
  static async create(files: FileSystem, path: string, shape: LayerShape): Promise<LayerWriter> {
    checkShape(shape);
    const file = await files.open(path, 'create');
    return closedUnlessDone(file, async () => {
      await files.syncDirectory(dirname(path));
      return new LayerWriter(path, shape, file, new LayerAllocation(shape));
    });
  }

  /**
   * Opens a half-written layer again, also one whose `finish` was interrupted or had already succeeded.
   *
   * `applied` are the operations that are durable (a `sync` has returned since), complete and in their order
   * from the first on. Whatever else the file holds is cut off, so that the finished file equals, byte by
   * byte, one written without interruption. Operations may be given in other pieces than they were applied.
   *
   * Failures: QCOW2_RESUME_MISMATCH if the file is shorter than what `applied` says, or if `applied` is no
   * ascending sequence; otherwise as `create`.
   */
  static async resume(
    files: FileSystem,
    path: string,
    shape: LayerShape,
    applied: Iterable<LayerOperation>,
  ): Promise<LayerWriter> {
    checkShape(shape);
    const file = await files.open(path, 'update');
    return closedUnlessDone(file, async () => {
      const presentBytes = await file.sizeBytes();
      // First of all, since the file must not look like an image while it is being changed.
      await eraseFixedParts(file, shape);
      const allocation = new LayerAllocation(shape);
      let endBytes = 0;
      for (const operation of applied) {
        const trouble = allocation.troubleWith(operation);
        if (trouble !== undefined)
          throw mismatch(path, `an operation recorded as applied is wrong: ${trouble}`);
        for (const step of allocation.apply(operation)) {
          const length = step.kind === 'data' ? step.length : step.bytes.length;
          endBytes = step.fileOffset + length;
          // Tables are written again rather than trusted: they cost little and need no proof then.
          if (step.kind === 'table') await file.write(step.bytes, step.fileOffset);
          else if (endBytes > presentBytes) {
            throw mismatch(path, `it has ${presentBytes} bytes, but data was recorded up to ${endBytes}`);
          }
        }
      }
      await file.truncate(endBytes);
      return new LayerWriter(path, shape, file, allocation);
    });
  }

  /** Writes data. It is durable after the next `sync` or `finish`. The buffer may be reused on return. */
  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#exclusively(() => this.#perform({ kind: 'data', offset, length: data.length }, data));
  }

  /** Marks a range as reading zero. It takes no space in the file; durable like data. */
  zero(offset: number, length: number): Promise<void> {
    return this.#exclusively(() => this.#perform({ kind: 'zero', offset, length }, undefined));
  }

  /**
   * Makes every operation that had returned before this call durable: it may be given to `resume` once this returns. Other
   * operations may go on meanwhile; of syncs there is one at a time.
   */
  async sync(): Promise<void> {
    assert(this.#syncing === undefined, `layer writer of ${this.#path} synced during a sync`);
    this.#assertUsable();
    const { promise: settled, resolve: settle } = Promise.withResolvers<void>();
    this.#syncing = settled;
    try {
      await this.#runs.flush();
      await this.#file.sync();
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      this.#syncing = undefined;
      settle();
    }
  }

  /**
   * Completes the layer: tables and refcounts, sync, header, sync, close. On return the file is a durable
   * qcow2 image of `fileBytes` (its apparent size; holes take no space).
   */
  async finish(): Promise<{ fileBytes: number }> {
    const fileBytes = await this.#exclusively(async () => {
      for (const step of this.#allocation.end()) {
        if (step.kind === 'table') await this.#file.write(step.bytes, step.fileOffset);
      }
      await this.#runs.flush();
      const size = await writeTables(this.#file, this.#shape, {
        tables: this.#allocation.tables,
        nextCluster: this.#allocation.nextCluster,
      });
      await this.#file.sync();
      await writeHeader(this.#file, this.#shape);
      await this.#file.sync();
      return size;
    });
    await this[Symbol.asyncDispose]();
    return { fileBytes };
  }

  /** Closes the file, finished or not, after an operation under way has settled. Repeated calls do nothing. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#state = 'closed';
    this.#closing ??= (async () => {
      await this.#current;
      await this.#syncing;
      await this.#runs.abandon();
      await this.#file.close();
    })();
    return this.#closing;
  }

  async #perform(operation: LayerOperation, data: Uint8Array | undefined): Promise<void> {
    this.#runs.throwIfFailed();
    for (const step of this.#allocation.apply(operation)) {
      if (step.kind === 'table') {
        await this.#file.write(step.bytes, step.fileOffset);
      } else {
        assert(data !== undefined, 'data steps come from data operations only');
        const start = step.offset - operation.offset;
        await this.#runs.append(data.subarray(start, start + step.length), step.fileOffset);
      }
    }
  }

  /** Runs one operation; the first failure ends the writer. */
  async #exclusively<T>(work: () => Promise<T>): Promise<T> {
    assert(this.#current === undefined, `layer writer of ${this.#path} called during an operation`);
    this.#assertUsable();
    const { promise: settled, resolve: settle } = Promise.withResolvers<void>();
    this.#current = settled;
    try {
      return await work();
    } catch (error) {
      this.#fail(error);
      throw error;
    } finally {
      this.#current = undefined;
      settle();
    }
  }

  #assertUsable(): void {
    assert(this.#state !== 'closed', `layer writer of ${this.#path} called after its end`);
    if (this.#state === 'open') return;
    throw qcow2Failure(
      'QCOW2_WRITER_FAILED',
      `${this.#path} was given up after: ${messageOf(this.#firstFailure)}`,
      { context: { path: this.#path }, cause: this.#firstFailure },
    );
  }

  #fail(error: unknown): void {
    if (this.#state === 'open') this.#state = 'failed';
    this.#firstFailure ??= error;
  }
}

async function closedUnlessDone<T>(file: FileHandle, work: () => Promise<T>): Promise<T> {
  let done = false;
  try {
    const result = await work();
    done = true;
    return result;
  } finally {
    if (!done) await file.close();
  }
}

function mismatch(path: string, what: string): Error {
  return qcow2Failure('QCOW2_RESUME_MISMATCH', `${path} cannot be resumed: ${what}`, { context: { path } });
}
