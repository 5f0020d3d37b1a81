import { alignedBuffer, PAGE_BYTES } from '../lib/aligned-buffer.ts';
import type { FileHandle } from '../lib/files.ts';

const BUFFER_BYTES = 1024 * 1024;
const BUFFERS_MAX = 4;
/**
 * A run that is shorter goes through the page cache, where the system gathers and sorts what is scattered. The two ways never
 * meet in one page: runs begin at sub-clusters, and each ends at one or has the rest of its last page to itself.
 */
const DIRECT_BYTES_MIN = 64 * 1024;

/**
 * Writes the data of a layer behind its caller: pieces that follow each other in the file are joined to runs of up
 * to 1 MiB, long ones go past the page cache, and up to four are under way. Nobody reads a layer while it is written, and a page
 * of the cache costs a virtual machine more time than the device needs for it (docs/adr/0005).
 *
 * The first failure stays: every later call throws it. Memory: 4 MiB at most, none after `flush`.
 */
export class RunWriter {
  readonly #file: FileHandle;
  #run: { readonly buffer: Buffer; readonly fileOffset: number; length: number } | undefined;
  readonly #underWay = new Set<Promise<void>>();
  #free: Buffer[] = [];
  #failure: { readonly error: unknown } | undefined;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  /**
   * Takes data that belongs at `fileOffset`, a multiple of 4 KiB. It has been copied on return, and may wait here for more.
   * Data whose end is no multiple of 4 KiB is followed by zeros up to there.
   */
  async append(data: Uint8Array, fileOffset: number): Promise<void> {
    for (let done = 0; done < data.length; ) {
      const at = fileOffset + done;
      if (this.#run && this.#run.fileOffset + this.#run.length !== at) this.#send();
      this.#run ??= { buffer: await this.#freeBuffer(), fileOffset: at, length: 0 };
      const run = this.#run;
      const count = Math.min(BUFFER_BYTES - run.length, data.length - done);
      run.buffer.set(data.subarray(done, done + count), run.length);
      run.length += count;
      done += count;
      if (run.length === BUFFER_BYTES) this.#send();
    }
  }

  throwIfFailed(): void {
    if (this.#failure) throw this.#failure.error;
  }

  /** Everything taken before this call is in the file, though not durable. More may be appended meanwhile. */
  async flush(): Promise<void> {
    this.#send();
    await Promise.all(this.#underWay);
    this.#free = [];
    this.throwIfFailed();
  }

  /** Drops what has not begun to be written, and waits for the rest. */
  async abandon(): Promise<void> {
    this.#run = undefined;
    await Promise.all(this.#underWay);
  }

  async #freeBuffer(): Promise<Buffer> {
    this.throwIfFailed();
    while (this.#free.length === 0 && this.#underWay.size >= BUFFERS_MAX) {
      const [oldest] = this.#underWay;
      await oldest;
      this.throwIfFailed();
    }
    return this.#free.pop() ?? alignedBuffer(BUFFER_BYTES);
  }

  #send(): void {
    if (this.#run === undefined) return;
    const { buffer, fileOffset, length } = this.#run;
    this.#run = undefined;
    const wholeBytes = Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
    const bytes = buffer.fill(0, length, wholeBytes).subarray(0, wholeBytes);
    const done = this.#write(bytes, fileOffset).finally(() => {
      this.#underWay.delete(done);
      this.#free.push(buffer);
    });
    this.#underWay.add(done);
  }

  /** Never rejects: its failure is for the next call. */
  async #write(bytes: Buffer, fileOffset: number): Promise<void> {
    try {
      if (bytes.length >= DIRECT_BYTES_MIN) await this.#file.writeDirect(bytes, fileOffset);
      else await this.#file.write(bytes, fileOffset);
    } catch (error) {
      this.#failure ??= { error };
    }
  }
}
