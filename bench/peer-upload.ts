/**
 * How fast does an upload go between two sites on this machine, into a handler that drops it?
 * Both ends share this process, and so one core. Prints MB/s (10^6 bytes).
 */
import { parseArgs } from 'node:util';
import { systemClock } from '../src/lib/clock.ts';
import type { UploadChunk } from '../src/peer/index.ts';
import type { CleanUp } from '../test/support/temporary.ts';
import { twoSites } from '../test/unit/peer/sites.ts';

const { values } = parseArgs({ options: { mebibytes: { type: 'string', default: '1024' } } });
const totalBytes = Number(values.mebibytes) * 1024 * 1024;

const ends: (() => void | Promise<void>)[] = [];
const scope: CleanUp = { after: (fn) => void ends.unshift(fn) };
try {
  const { client } = await twoSites(scope);
  for (const [what, group] of [
    ['64 KiB buffers', [65_536]],
    ['1 MiB buffers', [1_048_576]],
    ['frames of 32 bytes + 64 KiB, 16 at once', Array.from({ length: 16 }, () => [32, 65_536]).flat()],
  ] as const) {
    const startMs = systemClock.monotonicMs();
    await client.upload('bench', chunksOf(group, totalBytes));
    const seconds = (systemClock.monotonicMs() - startMs) / 1000;
    console.log(`peer upload, ${what}: ${Math.round(totalBytes / 1e6 / seconds)} MB/s`);
  }
} finally {
  for (const end of ends) await end();
}

async function* chunksOf(group: readonly number[], total: number): AsyncGenerator<UploadChunk> {
  const chunk = group.map((bytes) => Buffer.alloc(bytes, 1));
  const size = group.reduce((sum, bytes) => sum + bytes, 0);
  for (let sent = 0; sent < total; sent += size) yield chunk;
}
