/**
 * How fast does an upload go between two sites on this machine, into a handler that drops it? And what is left of
 * the speed of plain `node:tls` in the same run? Both ends share this process, and so one core.
 * Prints MB/s (10^6 bytes).
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:tls';
import { systemClock } from '../src/lib/clock.ts';
import { systemRandom } from '../src/lib/random.ts';
import type { SiteIdentity, UploadChunk } from '../src/peer/index.ts';
import { LeafKeeper } from '../src/peer/leaf-keeper.ts';
import { twoSites } from '../test/unit/peer/sites.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const TOTAL_MIB = 1024;

export async function run(totalMib = TOTAL_MIB): Promise<void> {
  const totalBytes = totalMib * 1024 * 1024;
  await withScope(async (scope) => {
    const { a, client } = await twoSites(scope);
    const plain = await plainTls(a.identity, totalBytes);
    console.log(`plain node:tls, 1 MiB buffers: ${Math.round(plain)} MB/s`);
    for (const [what, group] of [
      ['64 KiB buffers', [65_536]],
      ['1 MiB buffers', [1_048_576]],
      ['frames of 32 bytes + 64 KiB, 16 at once', Array.from({ length: 16 }, () => [32, 65_536]).flat()],
    ] as const) {
      const startMs = systemClock.monotonicMs();
      await client.upload('bench', chunksOf(group, totalBytes));
      const seconds = (systemClock.monotonicMs() - startMs) / 1000;
      const speed = totalBytes / 1e6 / seconds;
      console.log(`peer upload, ${what}: ${Math.round(speed)} MB/s, ${(speed / plain).toFixed(2)} of plain`);
    }
  });
}

async function* chunksOf(group: readonly number[], total: number): AsyncGenerator<UploadChunk> {
  const chunk = group.map((bytes) => Buffer.alloc(bytes, 1));
  const size = group.reduce((sum, bytes) => sum + bytes, 0);
  for (let sent = 0; sent < total; sent += size) yield chunk;
}

async function plainTls(identity: SiteIdentity, total: number): Promise<number> {
  const leaf = new LeafKeeper({ identity, clock: systemClock, random: systemRandom }).current();
  const server = createServer({ ...leaf, minVersion: 'TLSv1.3' }, (socket) => {
    let left = total;
    socket.on('data', (chunk) => {
      left -= chunk.length;
      if (left <= 0) socket.end('done');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  // A measurement of speed between two ends of one process: there is nobody to be sure of.
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const startMs = systemClock.monotonicMs();
  const buffer = Buffer.alloc(1024 * 1024, 1);
  for (let sent = 0; sent < total; sent += buffer.length) {
    if (!socket.write(buffer)) await once(socket, 'drain');
  }
  await once(socket, 'data');
  const seconds = (systemClock.monotonicMs() - startMs) / 1000;
  socket.destroy();
  server.close();
  return total / 1e6 / seconds;
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? TOTAL_MIB));
}
