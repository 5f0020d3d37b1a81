/**
 * What it takes to fill a fresh layer with 1 GiB, by our writer and by QEMU behind NBD, in the same run. Both end with
 * everything durable; the images are of the same kind. nbdcopy reads its source from the page cache, which our
 * side has no need of: its data comes from the network. `node bench/layer-writer.ts [MiB]`
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../src/lib/clock.ts';
import { nodeFiles } from '../src/lib/node-files.ts';
import { exitOf, runCommand } from '../src/lib/processes.ts';
import { systemRandom } from '../src/lib/random.ts';
import { createEmptyLayer, LayerWriter } from '../src/qcow2/index.ts';
import { socketListens } from '../test/support/started.ts';
import { printHead } from './support/head.ts';

const MIB = 1024 * 1024;
const ROUNDS = 3;

/** Which part of each 128 KiB is written: all, or one sub-cluster as scattered small writes leave it. */
const PATTERNS = {
  dense: { stepBytes: MIB, pieceBytes: MIB },
  scattered: { stepBytes: 128 * 1024, pieceBytes: 4096 },
} as const;
type Pattern = keyof typeof PATTERNS;

export async function run(totalMib = 1024): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'ws-bench-'));
  try {
    const rows: Record<string, Record<string, string | number>> = {};
    const measure = async (name: string, work: () => Promise<void>) => {
      const times: number[] = [];
      for (let i = 0; i < ROUNDS; i++) {
        const start = systemClock.monotonicMs();
        await work();
        times.push(systemClock.monotonicMs() - start);
      }
      times.sort((a, b) => a - b);
      rows[name] = { 'median ms': Math.round(times[1]!), 'least ms': Math.round(times[0]!) };
      return times[1]!;
    };

    const source = join(directory, 'source.raw');
    for (const pattern of ['dense', 'scattered'] as const) {
      const sizeBytes = totalMib * MIB;
      await writeSource(source, sizeBytes, pattern);
      const ours = await measure(`${pattern}: our writer`, () =>
        fillByWriter(join(directory, 'ours.qcow2'), sizeBytes, pattern),
      );
      const theirs = await measure(`${pattern}: nbdcopy to qemu-nbd`, () =>
        fillByQemu(directory, source, sizeBytes),
      );
      rows[`${pattern}: our writer`]!['times as fast'] = Number((theirs / ours).toFixed(1));
    }
    const shape = { sizeBytes: 2 ** 40, backing: { name: 'base.qcow2', format: 'qcow2' as const } };
    const empty = join(directory, 'empty.qcow2');
    const ours = await measure('an empty layer: ours', async () => {
      await createEmptyLayer(nodeFiles, empty, shape, { sync: true });
      await nodeFiles.remove(empty);
    });
    const theirs = await measure('an empty layer: qemu-img', async () => {
      await createByQemu(empty, shape.sizeBytes, ['-u', '-F', 'qcow2', '-b', 'base.qcow2']);
      await nodeFiles.remove(empty);
    });
    rows['an empty layer: ours']!['times as fast'] = Number((theirs / ours).toFixed(1));
    console.table(rows);
    console.log(
      `${totalMib} MiB of disk; resident memory at the end ${Math.round(process.memoryUsage().rss / MIB)} MiB`,
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function pieceOf(pattern: Pattern): Buffer {
  return systemRandom.bytes(PATTERNS[pattern].pieceBytes);
}

async function writeSource(path: string, sizeBytes: number, pattern: Pattern): Promise<void> {
  await nodeFiles.remove(path);
  const file = await nodeFiles.open(path, 'create');
  await file.truncate(sizeBytes);
  const piece = pieceOf(pattern);
  for (let at = 0; at < sizeBytes; at += PATTERNS[pattern].stepBytes) await file.write(piece, at);
  await file.sync();
  await file.close();
}

async function fillByWriter(path: string, sizeBytes: number, pattern: Pattern): Promise<void> {
  await nodeFiles.remove(path);
  await using writer = await LayerWriter.create(nodeFiles, path, { sizeBytes, backing: null });
  const piece = pieceOf(pattern);
  for (let at = 0; at < sizeBytes; at += PATTERNS[pattern].stepBytes) await writer.write(at, piece);
  await writer.finish();
}

/** nbdcopy sends no holes of the source; `--flush` makes the copy durable before it ends. */
async function fillByQemu(directory: string, source: string, sizeBytes: number): Promise<void> {
  const path = join(directory, 'theirs.qcow2');
  const socket = join(directory, 'nbd');
  await nodeFiles.remove(path);
  await createByQemu(path, sizeBytes, []);
  const server = spawn('qemu-nbd', ['-f', 'qcow2', '-k', socket, '-e', '4', '--cache=writeback', path], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    await socketListens(socket);
    await runCommand('nbdcopy', [
      '--flush',
      '--destination-is-zero',
      source,
      `nbd+unix:///?socket=${socket}`,
    ]);
  } finally {
    // Leaving by SIGTERM it writes its tables; the time that takes is part of the copy.
    server.kill('SIGTERM');
    await exitOf(server);
    await nodeFiles.remove(socket);
  }
}

async function createByQemu(path: string, sizeBytes: number, more: readonly string[]): Promise<void> {
  const options = 'extended_l2=on,cluster_size=128k';
  await runCommand('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    options,
    ...more,
    path,
    String(sizeBytes),
  ]);
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? 1024));
}
