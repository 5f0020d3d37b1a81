/**
 * What does a failover add to the boot of the guest? The time from the command to fail over until the guest agent answers,
 * minus what plain `qemu-system-x86_64` takes from its start until the same agent answers on one flat image of the same
 * point; with chains of 1, 10 and 60 layers, each of which holds changes on both disks. The two are measured in turn, so
 * that both meet the same host.
 *
 * And does it matter how many points a replica has received in its life? Failovers after 500 points, of which 128 and 60
 * are retained, against the same after 5. And what is it for whoever types the command? `node bench/rto.ts [ROUNDS] [POINTS]`
 */
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { LabDisk } from '../lab/index.ts';
import { runCommand } from '../src/lib/processes.ts';
import { type FailoverSite, failoverSite } from '../test/support/failover-site.ts';
import { change, type FailoverFigures, failOver } from '../test/support/point-histories.ts';
import { compareHistories } from './rto/history.ts';
import { bootDisks } from './rto/plain-boot.ts';
import { compareTyped } from './rto/typed.ts';
import { atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const LAYERS = [1, 10, 60] as const;
const ROUNDS = 5;
/** Points that the replica with a long history has received. */
const POINTS = 500;
/** What a failover may add to the boot of the guest. */
const OVERHEAD_TARGET_MS = 300;

const PIECES_OF_LAYER = 32;

interface Depth {
  readonly layers: number;
  readonly pointId: string;
  /** Directory of the same disks as one flat image each. */
  readonly flat: string;
  readonly plainMs: number[];
  readonly failovers: FailoverFigures[];
}

export async function run(rounds = ROUNDS, points = POINTS): Promise<void> {
  await withScope(async (scope) => {
    const site = await failoverSite(scope);
    const depths = await makeDepths(site);
    for (let round = 0; round < rounds; round++) {
      for (const depth of depths) {
        depth.plainMs.push(await bootPlainly(site, depth));
        depth.failovers.push(await failOver(site, site.replica, depth.pointId));
      }
    }
    print(depths);
  });
  await withScope((scope) => compareTyped(scope, rounds));
  await withScope((scope) => compareHistories(scope, rounds, points));
}

/** One replica whose points have ever longer chains, because nothing is merged. */
async function makeDepths(site: FailoverSite): Promise<readonly Depth[]> {
  const depths: Depth[] = [];
  for (let layers = 1; layers <= Math.max(...LAYERS); layers++) {
    if (layers > 1) await change(site, PIECES_OF_LAYER);
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
    depths.push({ layers, pointId, flat, plainMs: [], failovers: [] });
  }
  return depths;
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
    return await bootDisks(directory, disks);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function print(depths: readonly Depth[]): void {
  console.table(
    depths.map(({ layers, plainMs, failovers }) => {
      const times = failovers.map(({ rtoMs }) => rtoMs);
      return {
        layers,
        'plain QEMU, ms (median)': Math.round(median(plainMs)),
        'failover, ms (median)': Math.round(median(times)),
        'of it before the CPUs run': Math.round(median(failovers.map(({ actsMs }) => actsMs))),
        'failover, least': Math.round(Math.min(...times)),
        'failover, most': Math.round(Math.max(...times)),
      };
    }),
  );
  for (const { layers, plainMs, failovers } of depths) {
    const added = median(failovers.map(({ rtoMs }, round) => rtoMs - plainMs[round]!));
    console.log(
      `${layers} layers: a failover adds, in seconds, ${atMost(added / 1000, OVERHEAD_TARGET_MS / 1000, 2)}`,
    );
  }
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? ROUNDS), Number(process.argv[3] ?? POINTS));
}
