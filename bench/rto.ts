/**
 * What does a failover add to the boot of the guest? The time from the command to fail over until the guest agent answers,
 * minus what plain `qemu-system-x86_64` takes from its start until the same agent answers on one flat image of the same
 * point; with chains of 1, 10 and 60 layers, each of which holds changes on both disks. The two are measured in turn, so
 * that both meet the same host. `node bench/rto.ts [ROUNDS]`
 */
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type LabDisk, startLabMachine } from '../lab/index.ts';
import { connectGuest } from '../src/hypervisor/index.ts';
import { systemClock } from '../src/lib/clock.ts';
import { runCommand } from '../src/lib/processes.ts';
import { randomBelow, systemRandom } from '../src/lib/random.ts';
import { type FailoverSite, failoverSite } from '../test/support/failover-site.ts';
import { atMost, median } from './support/figures.ts';
import { withScope } from './support/scope.ts';
import { writePieces } from './support/tip-writer.ts';

const LAYERS = [1, 10, 60] as const;
const ROUNDS = 5;
/** What a failover may add to the boot of the guest. */
const OVERHEAD_TARGET_MS = 300;

/** Where the guest keeps no file system: its ledger's area on each disk, 16 MiB of which are written to here. */
const SCRATCH = { system: 360_448 * 512, data: 2_048 * 512 } as const;
const SCRATCH_BYTES = 16 * 1024 * 1024;
const PIECE_BYTES = 4096;
const PIECES_OF_LAYER = 32;

interface Depth {
  readonly layers: number;
  readonly pointId: string;
  /** Directory of the same disks as one flat image each. */
  readonly flat: string;
  readonly plainMs: number[];
  readonly failoverMs: number[];
  /** Of that, our own acts before the guest's CPUs run, the start of QEMU among them. */
  readonly actsMs: number[];
}

export async function run(rounds = ROUNDS): Promise<void> {
  await withScope(async (scope) => {
    const site = await failoverSite(scope);
    const depths = await makeDepths(site);
    for (let round = 0; round < rounds; round++) {
      for (const depth of depths) {
        depth.plainMs.push(await bootPlainly(site, depth));
        await failOver(site, depth);
      }
    }
    print(depths);
  });
}

/** One replica whose points have ever longer chains, because nothing is merged. */
async function makeDepths(site: FailoverSite): Promise<readonly Depth[]> {
  const depths: Depth[] = [];
  for (let layers = 1; layers <= Math.max(...LAYERS); layers++) {
    if (layers > 1) await change(site);
    const pointId = await site.point();
    if (!LAYERS.some((wanted) => wanted === layers)) continue;
    const flat = join(site.sites.directory, `flat-${layers}`);
    await mkdir(flat);
    for (const disk of ['system', 'data']) {
      const chain = site.replica.chain(pointId, disk);
      if (chain.length !== layers) throw new Error(`the chain has ${chain.length} layers, not ${layers}`);
      const to = join(flat, `${disk}.qcow2`);
      await runCommand('qemu-img', ['convert', '-f', 'qcow2', '-O', 'qcow2', chain.at(-1)!.path, to]);
    }
    depths.push({ layers, pointId, flat, plainMs: [], failoverMs: [], actsMs: [] });
  }
  return depths;
}

async function change({ sites, machine }: FailoverSite): Promise<void> {
  for (const disk of ['system', 'data'] as const) {
    const places = Array.from({ length: PIECES_OF_LAYER }, () =>
      randomBelow(systemRandom, SCRATCH_BYTES / PIECE_BYTES),
    );
    const offsets = places.map((place) => SCRATCH[disk] + place * PIECE_BYTES);
    await writePieces(sites.directory, machine.chain(disk).at(-1)!.path, offsets, PIECE_BYTES);
  }
}

/** What a person would do by hand: QEMU on a copy of the image, with the devices that the machine has. */
async function bootPlainly({ sites }: FailoverSite, { flat }: Depth): Promise<number> {
  const directory = join(sites.directory, 'plain');
  await mkdir(directory);
  try {
    const disks: LabDisk[] = [];
    for (const name of ['system', 'data']) {
      const path = join(directory, `${name}.qcow2`);
      await copyFile(join(flat, `${name}.qcow2`), path);
      disks.push({ name, path, format: 'qcow2' });
    }
    const nic = ['-netdev', 'hubport,id=lan,hubid=1', '-device', 'virtio-net-pci,netdev=lan'];
    const startMs = systemClock.monotonicMs();
    await using machine = await startLabMachine({ directory, disks, extraArgs: nic });
    await machine.agentReady();
    const { qmpPath, agentPath } = machine;
    await using guest = await connectGuest({ qmpPath, agentPath }, { clock: systemClock, timeoutMs: 10_000 });
    await guest.ping();
    return systemClock.monotonicMs() - startMs;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function failOver({ failovers, replica }: FailoverSite, depth: Depth): Promise<void> {
  const { pointId, failoverMs, actsMs } = depth;
  const report = await failovers.start(replica, { pointId }, { confirmedOtherSideDown: true });
  if (report.branchId) await failovers.cleanup(replica, report.branchId);
  if (report.rtoMs === null) throw new Error(`the failover failed: ${JSON.stringify(report.attempts)}`);
  failoverMs.push(report.rtoMs);
  const before = report.steps.filter(({ name }) => ['fence', 'branch', 'network', 'start'].includes(name));
  actsMs.push(before.reduce((sum, { durationMs }) => sum + durationMs, 0));
}

function print(depths: readonly Depth[]): void {
  console.table(
    depths.map(({ layers, plainMs, failoverMs, actsMs }) => ({
      layers,
      'plain QEMU, ms (median)': Math.round(median(plainMs)),
      'failover, ms (median)': Math.round(median(failoverMs)),
      'of it before the CPUs run': Math.round(median(actsMs)),
      'failover, least': Math.round(Math.min(...failoverMs)),
      'failover, most': Math.round(Math.max(...failoverMs)),
    })),
  );
  for (const { layers, plainMs, failoverMs } of depths) {
    const added = median(failoverMs.map((ms, round) => ms - plainMs[round]!));
    console.log(
      `${layers} layers: a failover adds, in seconds, ${atMost(added / 1000, OVERHEAD_TARGET_MS / 1000, 2)}`,
    );
  }
}

if (import.meta.main) await run(Number(process.argv[2] ?? ROUNDS));
