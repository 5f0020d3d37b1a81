import { type Clock, sleep } from '../lib/clock.ts';
import type { UploadChunk } from './upload-sender.ts';

/** A rate is looked at again at least this often, so that a change of schedule is felt soon. */
const LOOK_AGAIN_MS = 250;
/** What may pass at once after a pause: the bytes of this time, and at least the smallest piece. */
const BURST_MS = 250;
const PIECE_MIN_BYTES = 4 * 1024;

/**
 * The same bytes, no faster than `bytesPerSecond()` on average (a token bucket of a quarter of a second).
 * The rate is asked for before each piece: undefined means no limit and passes chunks on as they are, 0 means pause.
 * Large chunks are cut into pieces, so that a small rate flows evenly instead of in leaps.
 */
export async function* throttled(
  source: AsyncIterable<UploadChunk>,
  o: { bytesPerSecond: () => number | undefined; clock: Clock; signal?: AbortSignal },
): AsyncGenerator<UploadChunk, void, undefined> {
  let savedBytes = 0;
  let atMs = o.clock.monotonicMs();
  for await (const chunk of source) {
    if (o.bytesPerSecond() === undefined) {
      savedBytes = 0;
      atMs = o.clock.monotonicMs();
      yield chunk;
      continue;
    }
    for (const buffer of chunk instanceof Uint8Array ? [chunk] : chunk) {
      let done = 0;
      while (done < buffer.length) {
        const rate = o.bytesPerSecond() ?? Number.POSITIVE_INFINITY;
        const nowMs = o.clock.monotonicMs();
        const burstBytes = Math.max(PIECE_MIN_BYTES, (rate * BURST_MS) / 1000);
        const earned = rate === Number.POSITIVE_INFINITY ? burstBytes : (rate * (nowMs - atMs)) / 1000;
        savedBytes = Math.min(burstBytes, savedBytes + earned);
        atMs = nowMs;
        const leftBytes = buffer.length - done;
        const wantedBytes = Math.min(leftBytes, PIECE_MIN_BYTES);
        if (savedBytes >= wantedBytes) {
          const pieceBytes = Math.min(leftBytes, Math.floor(savedBytes));
          yield buffer.subarray(done, done + pieceBytes);
          done += pieceBytes;
          savedBytes -= pieceBytes;
        } else {
          const waitMs = rate > 0 ? Math.ceil(((wantedBytes - savedBytes) / rate) * 1000) : LOOK_AGAIN_MS;
          await sleep(o.clock, Math.min(waitMs, LOOK_AGAIN_MS), o.signal);
        }
      }
    }
  }
}
