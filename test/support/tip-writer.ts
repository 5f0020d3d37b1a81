import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { systemClock } from '../../src/lib/clock.ts';
import { exitOf } from '../../src/lib/processes.ts';
import { systemRandom } from '../../src/lib/random.ts';
import { NbdClient } from '../../src/nbd/index.ts';
import { socketListens } from './started.ts';

const UNDER_WAY = 16;
/** Pieces are taken from here at changing places: random enough for everything that compares or compresses. */
const NOISE = systemRandom.bytes(1024 * 1024);

/**
 * Writes random pieces into the tip of a stopped machine, as its guest would have done, through qemu-nbd. On return the
 * file is closed and the tip has everything, in the page cache at least.
 */
export async function writePieces(
  directory: string,
  tipPath: string,
  offsets: readonly number[],
  pieceBytes: number,
): Promise<void> {
  const path = join(directory, 'tip');
  const server = spawn('qemu-nbd', ['-f', 'qcow2', '--cache=writeback', '-k', path, tipPath], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    await socketListens(path);
    const address = { kind: 'unix', path } as const;
    await using client = await NbdClient.connect({ address, exportName: '', clock: systemClock });
    let next = 0;
    const writer = async () => {
      while (next < offsets.length) {
        const offset = offsets[next++]!;
        const from = (next * 512) % (NOISE.length - pieceBytes);
        await client.write(offset, NOISE.subarray(from, from + pieceBytes));
      }
    };
    await Promise.all(Array.from({ length: UNDER_WAY }, writer));
    await client.flush();
  } catch (error) {
    server.kill('SIGTERM');
    throw error;
  } finally {
    // It leaves by itself when its only client has gone, having closed the image.
    await exitOf(server);
  }
}
