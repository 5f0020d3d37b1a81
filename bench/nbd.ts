import { spawn } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../src/lib/clock.ts';
import { exitOf, runCommand } from '../src/lib/processes.ts';
import { systemRandom } from '../src/lib/random.ts';
import { retrying } from '../src/lib/retry.ts';
import { NbdClient } from '../src/nbd/index.ts';
import { printHead } from './support/head.ts';

/**
 * How fast is a whole disk read and written over NBD, compared with nbdcopy on the same server in the same run?
 * The disk is in the page cache, so that the protocol is measured and not the storage.
 */

const MiB = 1024 * 1024;
const SIZE_BYTES = 512 * MiB;
const DEPTH = 8;

interface Row {
  readonly what: string;
  /** 10⁹ bytes per second of wall clock. */
  readonly gigabytesPerSecond: number;
  /** 10⁹ bytes per second of processor time of this process; nbdcopy's is not measured. */
  readonly perCoreOfClient?: number;
}

export async function run(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-'));
  const disk = join(directory, 'disk.raw');
  const socket = join(directory, 's');
  const file = await open(disk, 'wx');
  const block = systemRandom.bytes(MiB);
  for (let at = 0; at < SIZE_BYTES; at += MiB) await file.write(block, 0, MiB, at);
  await file.close();
  const server = spawn('qemu-nbd', ['-t', '-e', '8', '-f', 'raw', '--cache=writeback', '-k', socket, disk], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    const rows: Row[] = [];
    // Refused until the server listens.
    const tools = { clock: systemClock, random: systemRandom };
    const client = await retrying(tools, { firstMs: 20, maximumMs: 200, triesMax: 50 }, () =>
      NbdClient.connect({ address: { kind: 'unix', path: socket }, exportName: '', clock: systemClock }),
    );
    await using _closing = client;
    for (const pieceBytes of [256 * 1024, MiB]) {
      const buffers = Array.from({ length: DEPTH }, () => Buffer.from(block.subarray(0, pieceBytes)));
      const name = `${pieceBytes / 1024} KiB, ${DEPTH} under way`;
      rows.push(await measure(`read, ${name}`, buffers, (buffer, at) => client.readInto(buffer, at)));
      rows.push(await measure(`write, ${name}`, buffers, (buffer, at) => client.write(at, buffer)));
    }
    rows.push(await peer('nbdcopy to null, 1 connection', [uri(socket), 'null:']));
    console.table(rows);
  } finally {
    server.kill('SIGTERM');
    await exitOf(server);
    await rm(directory, { recursive: true, force: true });
  }
}

async function measure(
  what: string,
  buffers: readonly Buffer[],
  move: (buffer: Buffer, offset: number) => Promise<void>,
): Promise<Row> {
  let next = 0;
  const begin = systemClock.monotonicMs();
  const before = process.cpuUsage();
  await Promise.all(
    buffers.map(async (buffer) => {
      while (next < SIZE_BYTES) {
        const offset = next;
        next += buffer.length;
        await move(buffer, offset);
      }
    }),
  );
  const tookMs = systemClock.monotonicMs() - begin;
  const { user, system } = process.cpuUsage(before);
  return { what, gigabytesPerSecond: rate(tookMs), perCoreOfClient: rate((user + system) / 1000) };
}

async function peer(what: string, args: readonly string[]): Promise<Row> {
  const begin = systemClock.monotonicMs();
  await runCommand('nbdcopy', ['--connections=1', `--requests=${DEPTH}`, '--no-extents', ...args]);
  return { what, gigabytesPerSecond: rate(systemClock.monotonicMs() - begin) };
}

function uri(socket: string): string {
  return `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
}

function rate(tookMs: number): number {
  return Math.round(SIZE_BYTES / 1e4 / tookMs) / 100;
}

if (import.meta.main) {
  await printHead();
  await run();
}
