/**
 * What does a copy cost its hosts? Processor time of the site processes and of the tools that they start, from the cut until all is
 * proven, acknowledged and merged at both sites; for a guest of three disks that has written next to nothing, and for one that has made
 * 1,500 durable writes of 4 KiB at random places. Both sites are one process here; the guest's own QEMU is not counted.
 *
 * `node bench/cycle.ts [COPIES]`
 */
import { readFile } from 'node:fs/promises';
import { systemClock } from '../src/lib/clock.ts';
import { copyAndSend } from '../test/support/lab-sites.ts';
import { latency } from './guest/latency.ts';
import { labWithWrittenDisk, WRITTEN_DISK } from './guest/written-disk.ts';
import { median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const COPIES = 20;
const WRITES = 1500;
/** Few enough that each copy has a point merged away at the recovery site. */
const RETENTION = { types: { crash: 3, app: 1 } };
const COPIES_BEFORE = 5;

interface Cost {
  readonly sitesMs: number;
  readonly toolsMs: number;
}

interface Cycle extends Cost {
  readonly wallMs: number;
  readonly wireBytes: number;
}

export async function run(copies = COPIES): Promise<void> {
  await withScope(async (scope) => {
    const { lab, agentPath } = await labWithWrittenDisk(scope, { retention: RETENTION });
    const cycle = async (): Promise<Cycle> => {
      const before = await spentUntilNow();
      const startMs = systemClock.monotonicMs();
      const { wireBytes } = await copyAndSend(lab.machine, lab.sites.target);
      const wallMs = systemClock.monotonicMs() - startMs;
      const after = await spentUntilNow();
      return {
        ...{ wallMs, wireBytes },
        ...{ sitesMs: after.sitesMs - before.sitesMs, toolsMs: after.toolsMs - before.toolsMs },
      };
    };
    for (let copy = 0; copy < COPIES_BEFORE; copy++) await cycle();
    const quiet: Cycle[] = [];
    const busy: Cycle[] = [];
    for (let copy = 0; copy < copies; copy++) {
      quiet.push(await cycle());
      await latency(agentPath, { ...WRITTEN_DISK, pattern: 'random4k', count: WRITES, seed: copy });
      busy.push(await cycle());
    }
    console.table([rowOf('next to nothing written', quiet), rowOf(`${WRITES} writes of 4 KiB`, busy)]);
  });
}

/** Processor time of this process and of the processes that it has started and waited for (proc_pid_stat(5)). */
async function spentUntilNow(): Promise<Cost> {
  const stat = await readFile('/proc/self/stat', 'latin1');
  // The name of the program, in parentheses, may hold spaces; fields are counted from behind it.
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const [user, system, childrenUser, childrenSystem] = fields.slice(11, 15);
  const TICK_MS = 10;
  return {
    sitesMs: (user! + system!) * TICK_MS,
    toolsMs: (childrenUser! + childrenSystem!) * TICK_MS,
  };
}

function rowOf(guest: string, cycles: readonly Cycle[]): Readonly<Record<string, string | number>> {
  const mean = (of: (cycle: Cycle) => number) =>
    Math.round(cycles.reduce((sum, cycle) => sum + of(cycle), 0) / cycles.length);
  return {
    guest,
    'processor time, ms a copy': mean(({ sitesMs, toolsMs }) => sitesMs + toolsMs),
    'of it the sites': mean(({ sitesMs }) => sitesMs),
    'of it their tools': mean(({ toolsMs }) => toolsMs),
    'from cut to merged, ms (median)': Math.round(median(cycles.map(({ wallMs }) => wallMs))),
    'on the wire, KiB': mean(({ wireBytes }) => wireBytes / 1024),
  };
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? COPIES));
}
