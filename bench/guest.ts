/**
 * What does the guest notice? Latency of durable writes in the lab guest, 4 KiB at random places and 64 KiB in sequence:
 *
 * - with a crash-consistent cut every 5 s and the whole replication behind it (reading, hashing, sending, writing and
 *   verifying at the replica, merging), against no cut at all; and with the cuts alone, which shows how much of the difference
 *   comes from fresh layers and how much from the work beside the guest. Each round is one of each, in turn, on the same disk of
 *   the same running machine, so that all meet the same host;
 * - on fresh overlays as `qemu-img create` makes them (clusters of 64 KiB) against ours (clusters of 128 KiB, tracked in
 *   4 KiB), on a disk that is full below: what the guest pays for its first writes after a cut.
 *
 * And its throughput, while a delta goes over a link that is throttled to 1 MB/s, against none under way.
 *
 * Both sites share the processors with the guest. `node bench/guest.ts [ROUNDS]`
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { buildLabGuest, copyLabGuest, type LabDisk, startLabMachine } from '../lab/index.ts';
import { sleep, systemClock } from '../src/lib/clock.ts';
import { nodeFiles } from '../src/lib/node-files.ts';
import { runCommand } from '../src/lib/processes.ts';
import { systemRandom } from '../src/lib/random.ts';
import { createEmptyLayer } from '../src/qcow2/index.ts';
import { type LabSites, sendAll } from '../test/support/lab-sites.ts';
import { type CleanUp, temporaryDirectory } from '../test/support/temporary.ts';
import { countOfRound, type Latency, latency, PATTERNS, type Pattern } from './guest/latency.ts';
import { compareThrottled } from './guest/throttled.ts';
import { labWithWrittenDisk, WRITTEN_DISK } from './guest/written-disk.ts';
import { atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const MIB = 1024 * 1024;
const ROUNDS = 3;
const CUT_EVERY_MS = 5_000;
/** p99 with cuts against p99 without. */
const P99_TARGET = 1.1;
/** The part of a disk that is written to under fresh overlays. */
const SPAN_BYTES = 64 * MIB;
/** Writes in one measurement of a fresh overlay: no more than fit once into the span. */
const OVERLAY_WRITES = 800;

interface Row {
  readonly pattern: Pattern;
  readonly how: string;
  readonly rounds: Latency[];
}

interface CutFigures {
  readonly pauseMs: number[];
  readonly cycleMs: number[];
}

export async function run(rounds = ROUNDS): Promise<void> {
  await withScope(async (scope) => {
    const cuts: CutFigures = { pauseMs: [], cycleMs: [] };
    const rows = await measureCuts(scope, rounds, cuts);
    printRows(rows);
    console.log(
      `${cuts.pauseMs.length} cuts: pause ${median(cuts.pauseMs).toFixed(1)} ms (most ${Math.max(...cuts.pauseMs).toFixed(1)}), ` +
        `from cut to merged ${median(cuts.cycleMs).toFixed(0)} ms (medians)`,
    );
    for (const { pattern, ratio } of ratiosOf(rows)) {
      console.log(`${pattern}: p99 with cuts against without ${atMost(ratio, P99_TARGET, 2)}`);
    }
    for (const { pattern, ratio } of ratiosOf(rows, 2)) {
      console.log(`${pattern}: p99 with the cuts alone against without ${ratio.toFixed(2)}`);
    }
  });
  await withScope(async (scope) => {
    const rows = await measureOverlays(scope, rounds);
    printRows(rows);
    for (const { pattern, ratio } of ratiosOf(rows)) {
      console.log(`${pattern}: p99 on a fresh overlay of ours against a default one ${ratio.toFixed(2)}`);
    }
  });
  await withScope((scope) => compareThrottled(scope, rounds));
}

async function measureCuts(scope: CleanUp, rounds: number, cuts: CutFigures): Promise<readonly Row[]> {
  const { lab, agentPath } = await labWithWrittenDisk(scope);
  const rows: Row[] = [];
  for (const pattern of PATTERNS) {
    const count = await countOfRound(agentPath, { ...WRITTEN_DISK, pattern });
    const none: Row = { pattern, how: 'no cuts', rounds: [] };
    const cutting: Row = { pattern, how: `a cut every ${CUT_EVERY_MS / 1000} s`, rounds: [] };
    const alone: Row = { pattern, how: 'the cuts alone', rounds: [] };
    for (let round = 1; round <= rounds; round++) {
      const request = { ...WRITTEN_DISK, pattern, count, seed: round };
      none.rounds.push(await latency(agentPath, request));
      cutting.rounds.push(await whileCutting(lab, cuts, 'sent', () => latency(agentPath, request)));
      alone.rounds.push(await whileCutting(lab, cuts, 'kept', () => latency(agentPath, request)));
      await sendAll(lab.machine, lab.sites.target);
    }
    rows.push(none, cutting, alone);
  }
  return rows;
}

/** Cuts all the time that `work` takes, beginning at once; each cut is sent and merged before the next, or kept. */
async function whileCutting<T>(
  { machine, sites }: LabSites,
  { pauseMs, cycleMs }: CutFigures,
  cuts: 'sent' | 'kept',
  work: () => Promise<T>,
): Promise<T> {
  const ending = new AbortController();
  const cutter = (async () => {
    while (!ending.signal.aborted) {
      const startMs = systemClock.monotonicMs();
      const { cutId } = await machine.cut('crash');
      const cut = machine.cuts.find((candidate) => candidate.cutId === cutId);
      pauseMs.push(cut!.pauseMs);
      if (cuts === 'sent') {
        const outcome = await machine.replicate(sites.target);
        if (outcome.kind !== 'sent') throw new Error(`a cut was not sent: ${outcome.kind}`);
        cycleMs.push(systemClock.monotonicMs() - startMs);
      }
      const tookMs = systemClock.monotonicMs() - startMs;
      await pause(CUT_EVERY_MS - tookMs, ending.signal);
    }
  })();
  try {
    const [result] = await Promise.all([work().finally(() => ending.abort()), cutter]);
    return result;
  } finally {
    ending.abort();
    await Promise.allSettled([cutter]);
  }
}

async function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  if (delayMs <= 0 || signal.aborted) return;
  await sleep(systemClock, delayMs, signal).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

/** Two equal disks of a plain machine, each under a fresh overlay of its own kind in every round. */
async function measureOverlays(scope: CleanUp, rounds: number): Promise<readonly Row[]> {
  const directory = await temporaryDirectory(scope);
  const machineDirectory = join(directory, 'm');
  await mkdir(machineDirectory);
  const guest = await copyLabGuest(await buildLabGuest(), directory);
  const disks: LabDisk[] = [
    { name: 'system', path: guest.systemDisk, format: 'qcow2' },
    { name: 'data', path: guest.dataDisk, format: 'qcow2' },
  ];
  const kinds = [
    { name: 'default', device: '/dev/vdc', create: createDefaultOverlay },
    { name: 'ours', device: '/dev/vdd', create: createOurOverlay },
  ].map((kind) => ({ ...kind, tip: { node: kind.name, path: join(directory, `${kind.name}.raw`) } }));
  for (const { name, tip } of kinds) {
    await fill(tip.path);
    disks.push({ name, path: tip.path, format: 'raw' });
  }
  await using machine = await startLabMachine({ directory: machineDirectory, disks });
  await machine.agentReady();
  const rows: Row[] = PATTERNS.flatMap((pattern) =>
    kinds.map(({ name }) => ({ pattern, how: `fresh overlay: ${name}`, rounds: [] })),
  );
  for (let round = 1; round <= rounds; round++) {
    for (const pattern of PATTERNS) {
      for (const kind of kinds) {
        const node = `${kind.name}-${pattern}-${round}`;
        const path = join(directory, `${node}.qcow2`);
        await kind.create(path, kind.tip);
        const file = { driver: 'file', filename: path };
        await machine.execute('blockdev-add', {
          ...{ 'node-name': node, driver: 'qcow2', file, backing: null, discard: 'unmap' },
        });
        await machine.execute('blockdev-snapshot', { node: kind.tip.node, overlay: node });
        kind.tip = { node, path };
        const row = rows.find((one) => one.pattern === pattern && one.how.endsWith(kind.name))!;
        const place = { device: kind.device, spanBytes: SPAN_BYTES };
        const request = { ...place, pattern, count: OVERLAY_WRITES, seed: round };
        row.rounds.push(await latency(machine.agentPath, request));
      }
    }
  }
  return rows;
}

interface Tip {
  readonly node: string;
  readonly path: string;
}

const formatOf = ({ path }: Tip) => (path.endsWith('.raw') ? 'raw' : 'qcow2');

async function createDefaultOverlay(path: string, tip: Tip): Promise<void> {
  const backing = ['-b', tip.path, '-F', formatOf(tip)];
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path]);
}

async function createOurOverlay(path: string, tip: Tip): Promise<void> {
  const backing = { name: tip.path, format: formatOf(tip) } as const;
  await createEmptyLayer(nodeFiles, path, { sizeBytes: SPAN_BYTES, backing }, { sync: true });
}

async function fill(path: string): Promise<void> {
  const file = await nodeFiles.open(path, 'create');
  for (let at = 0; at < SPAN_BYTES; at += MIB) await file.write(systemRandom.bytes(MIB), at);
  await file.sync();
  await file.close();
}

function printRows(rows: readonly Row[]): void {
  console.table(
    rows.map(({ pattern, how, rounds }) => ({
      pattern,
      how,
      writes: rounds.reduce((sum, { count }) => sum + count, 0),
      'p50, µs (medians)': median(rounds.map(({ p50Us }) => p50Us)),
      'p99, µs': median(rounds.map(({ p99Us }) => p99Us)),
      'p99, least': Math.min(...rounds.map(({ p99Us }) => p99Us)),
      'p99, most': Math.max(...rounds.map(({ p99Us }) => p99Us)),
      'most, µs': median(rounds.map(({ maxUs }) => maxUs)),
    })),
  );
}

/** Of each pattern a row against the first. */
function ratiosOf(
  rows: readonly Row[],
  place = 1,
): readonly { readonly pattern: Pattern; readonly ratio: number }[] {
  return PATTERNS.map((pattern) => {
    const p99s = rows
      .filter((row) => row.pattern === pattern)
      .map(({ rounds }) => median(rounds.map(({ p99Us }) => p99Us)));
    return { pattern, ratio: p99s[place]! / p99s[0]! };
  });
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? ROUNDS));
}
