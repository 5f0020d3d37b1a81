import { promisify } from 'node:util';
import { constants, type ZstdOptions, zstdCompress, zstdDecompress } from 'node:zlib';
import { messageOf } from '../lib/errors.ts';
import { deltaFailure } from './errors.ts';

/** log2 of the largest window a frame may need: 1 MiB, the most that a data frame holds. */
const WINDOW_LOG_MAX = 20;

const SAMPLE_BYTES = 4096;
const SAMPLE_RUNS = 16;
/** Random bytes measure about 7.95 bits a byte in a sample of this size; text, code and tables below 7. */
const BITS_PER_BYTE_MAX = 7.8;

const compress = promisify<Uint8Array, ZstdOptions, Buffer>(zstdCompress);

/** With `info` Node gives the engine along, which knows how much of the payload it has read. */
const decompress = promisify(zstdDecompress) as unknown as (
  payload: Uint8Array,
  options: ZstdOptions & { readonly info: true },
) => Promise<{ buffer: Buffer; engine: { bytesWritten: number } }>;

/**
 * One zstd frame of `data`, or undefined where that would not be smaller. Runs in the thread pool; `data`
 * must not change before the promise settles.
 */
export async function compressed(data: Buffer, zstdLevel: number): Promise<Buffer | undefined> {
  if (looksIncompressible(data)) return undefined;
  const result = await compress(data, {
    // One output buffer instead of a chain of 16 KiB ones.
    chunkSize: Math.max(64, data.length + 512),
    pledgedSrcSize: data.length,
    params: {
      [constants.ZSTD_c_compressionLevel]: zstdLevel,
      [constants.ZSTD_c_windowLog]: WINDOW_LOG_MAX,
    },
  });
  return result.length < data.length ? result : undefined;
}

/** Exactly `length` bytes, never more in memory than that and the window. Throws DELTA_INVALID. */
export async function decompressed(payload: Buffer, length: number): Promise<Buffer> {
  let result: Awaited<ReturnType<typeof decompress>>;
  try {
    result = await decompress(payload, {
      info: true,
      // A little more than the result, so that its end is seen without a second buffer.
      chunkSize: Math.max(64, length + 64),
      maxOutputLength: length,
      params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
    });
  } catch (error) {
    throw deltaFailure('DELTA_INVALID', `a frame could not be decompressed: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const { buffer, engine } = result;
  // Node stops after the first zstd frame and says nothing of bytes behind it.
  if (engine.bytesWritten !== payload.length) {
    throw deltaFailure('DELTA_INVALID', `a payload of ${payload.length} bytes is not one zstd frame`);
  }
  if (buffer.length !== length) {
    throw deltaFailure('DELTA_INVALID', `a frame decompressed to ${buffer.length} bytes, not ${length}`);
  }
  return buffer;
}

/**
 * Whether a sample of the bytes is as evenly spread as random ones are: media, archives and ciphertext. It
 * costs microseconds where a try costs milliseconds; a repeated random block is missed, and sent as it is.
 */
function looksIncompressible(data: Uint8Array): boolean {
  if (data.length < SAMPLE_BYTES) return false;
  const counts = new Uint16Array(256);
  const runBytes = SAMPLE_BYTES / SAMPLE_RUNS;
  const stride = Math.floor((data.length - runBytes) / (SAMPLE_RUNS - 1));
  for (let run = 0; run < SAMPLE_RUNS; run++) {
    const start = run * stride;
    for (let at = start; at < start + runBytes; at++) counts[data[at]!]!++;
  }
  let bits = 0;
  for (const count of counts) {
    if (count > 0) bits -= count * Math.log2(count / SAMPLE_BYTES);
  }
  return bits / SAMPLE_BYTES > BITS_PER_BYTE_MAX;
}
