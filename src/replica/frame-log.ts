import { crc32 } from 'node:zlib';
import { type DeltaProgress, NOTHING_RECEIVED, progressAfter } from '../delta/index.ts';
import type { FileHandle, FileSystem } from '../lib/files.ts';
import type { LayerOperation } from '../qcow2/index.ts';

/** How far a delta has come once these frames have been applied upon `before`. */
export function progressOf(applied: readonly AppliedFrame[], before = NOTHING_RECEIVED): DeltaProgress {
  return applied.reduce(
    (progress, { kind, ...range }) => progressAfter(progress, { type: kind, ...range }),
    before,
  );
}

/** One applied frame of a delta: which disk, and what was written or zeroed. */
export interface AppliedFrame extends LayerOperation {
  readonly disk: number;
  /** Its bytes came from an older copy of the disk and not over the wire. */
  readonly isOlder?: boolean;
}

const RECORD_BYTES = 32;
const MAGIC = 0x57464c31; // «WFL1»

/**
 * The list of frames of a delta whose data is durable in the incoming layers, in their order: 32 bytes a frame, each
 * with its own checksum, so that a torn end is recognised and cut off. It is appended to and synced only after the
 * layers themselves have been synced; a frame that stands here need not be sent again.
 */
export class FrameLog {
  readonly #handle: FileHandle;
  #sizeBytes: number;

  private constructor(handle: FileHandle, sizeBytes: number) {
    this.#handle = handle;
    this.#sizeBytes = sizeBytes;
  }

  static async open(files: FileSystem, path: string): Promise<{ log: FrameLog; applied: AppliedFrame[] }> {
    const exists = (await files.sizeOf(path)) !== undefined;
    const handle = await files.open(path, exists ? 'update' : 'create');
    try {
      const bytes = Buffer.alloc(await handle.sizeBytes());
      await handle.read(bytes, 0);
      const applied: AppliedFrame[] = [];
      for (let at = 0; at + RECORD_BYTES <= bytes.length; at += RECORD_BYTES) {
        const frame = decode(bytes.subarray(at, at + RECORD_BYTES), applied.length);
        if (!frame) break;
        applied.push(frame);
      }
      const sizeBytes = applied.length * RECORD_BYTES;
      if (sizeBytes !== bytes.length) {
        await handle.truncate(sizeBytes);
        // What is cut off may look valid again behind records that are appended later: it must not come back.
        await handle.sync();
      }
      return { log: new FrameLog(handle, sizeBytes), applied };
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Durable on return. */
  async append(frames: readonly AppliedFrame[], firstNumber: number): Promise<void> {
    if (frames.length === 0) return;
    const bytes = Buffer.concat(frames.map((frame, index) => encode(frame, firstNumber + index)));
    await this.#handle.write(bytes, this.#sizeBytes);
    await this.#handle.sync();
    this.#sizeBytes += bytes.length;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

function encode(frame: AppliedFrame, number: number): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt8(frame.kind === 'data' ? 1 : 2, 4);
  // For reports alone: whoever does not know it reads a frame of data, which it is.
  if (frame.isOlder) bytes.writeUInt8(1, 5);
  bytes.writeUInt16BE(frame.disk, 6);
  bytes.writeBigUInt64BE(BigInt(frame.offset), 8);
  bytes.writeBigUInt64BE(BigInt(frame.length), 16);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 24), number >>> 0), 24);
  return bytes;
}

/** `number` seeds the checksum, so that a record at a wrong place is not taken for the right one. */
function decode(bytes: Buffer, number: number): AppliedFrame | undefined {
  if (bytes.readUInt32BE(0) !== MAGIC) return undefined;
  if (bytes.readUInt32BE(24) !== crc32(bytes.subarray(0, 24), number >>> 0)) return undefined;
  return {
    kind: bytes.readUInt8(4) === 1 ? 'data' : 'zero',
    disk: bytes.readUInt16BE(6),
    offset: Number(bytes.readBigUInt64BE(8)),
    length: Number(bytes.readBigUInt64BE(16)),
    ...(bytes.readUInt8(5) === 1 ? { isOlder: true } : {}),
  };
}
