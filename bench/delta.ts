/**
 * What does it cost to copy what has changed? 1 % of a disk of 8 GiB is rewritten at random places, in pieces of 64 KiB
 * and of 4 KiB: how many bytes go over the wire for each byte that changed (no compression), how long does a cycle take
 * from the command to cut until the point is acknowledged and the layer is merged, and what becomes of that time when the
 * disk is an eighth as large, or the change a tenth?
 *
 * The machine is stopped and its disk empty below the changes; the replica is behind the same process, so that the time
 * is that of reading, hashing, writing, verifying and merging, and not of a link. `node bench/delta.ts [ROUNDS]`
 */
import { join } from 'node:path';
import { systemClock } from '../src/lib/clock.ts';
import { runCommand } from '../src/lib/processes.ts';
import { randomBelow, systemRandom } from '../src/lib/random.ts';
import type { ProtectedMachine } from '../src/replication/index.ts';
import { BY_HAND, sendAll } from '../test/support/lab-sites.ts';
import type { CleanUp } from '../test/support/temporary.ts';
import { writePieces } from '../test/support/tip-writer.ts';
import { type TwoSites, twoSites } from '../test/support/two-sites.ts';
import { atMost, median } from './support/figures.ts';
import { printHead } from './support/head.ts';
import { withScope } from './support/scope.ts';

const KIB = 1024;
const GIB = 1024 ** 3;
const LARGE_BYTES = 8 * GIB;
const SMALL_BYTES = GIB;
const CHANGE_BYTES = LARGE_BYTES / 100;
const ROUNDS = 3;

/** Bytes on the wire for each byte that changed, at the most. */
const WIRE_TARGETS: Readonly<Record<number, number>> = { [64 * KIB]: 1.02, [4 * KIB]: 1.15 };

interface Case {
  readonly disk: Disk;
  readonly pieceBytes: number;
  readonly changeBytes: number;
  readonly cutMs: number[];
  readonly cycleMs: number[];
  readonly wireRatio: number[];
}

interface Disk {
  readonly sizeBytes: number;
  readonly sites: TwoSites;
  readonly machine: ProtectedMachine;
}

export async function run(rounds = ROUNDS): Promise<void> {
  await withScope(async (scope) => {
    const large = await protectedDisk(scope, LARGE_BYTES);
    const small = await protectedDisk(scope, SMALL_BYTES);
    const cases = [64 * KIB, 4 * KIB].flatMap((pieceBytes) => [
      newCase(large, pieceBytes, CHANGE_BYTES),
      newCase(small, pieceBytes, CHANGE_BYTES),
      newCase(large, pieceBytes, CHANGE_BYTES / 10),
    ]);
    for (let round = 0; round < rounds; round++) for (const one of cases) await cycle(one);
    print(cases);
  });
}

function newCase(disk: Disk, pieceBytes: number, changeBytes: number): Case {
  return { disk, pieceBytes, changeBytes, cutMs: [], cycleMs: [], wireRatio: [] };
}

/** A stopped machine with one disk whose empty state the target has. */
async function protectedDisk(scope: CleanUp, sizeBytes: number): Promise<Disk> {
  const sites = await twoSites(scope);
  const path = join(sites.directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(sizeBytes)]);
  const machine = await sites.addMachine([{ diskId: 'disk', path, sizeBytes }]);
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  await machine.cut('crash');
  await sendAll(machine, sites.target);
  return { sizeBytes, sites, machine };
}

async function cycle({ disk, pieceBytes, changeBytes, cutMs, cycleMs, wireRatio }: Case): Promise<void> {
  const { sites, machine, sizeBytes } = disk;
  const offsets = randomOffsets(Math.round(changeBytes / pieceBytes), pieceBytes, sizeBytes);
  await writePieces(sites.directory, machine.chain('disk').at(-1)!.path, offsets, pieceBytes);
  const startMs = systemClock.monotonicMs();
  await machine.cut('crash');
  cutMs.push(systemClock.monotonicMs() - startMs);
  const outcome = await machine.replicate(sites.target);
  cycleMs.push(systemClock.monotonicMs() - startMs);
  if (outcome.kind !== 'sent') throw new Error(`the change was not sent: ${outcome.kind}`);
  wireRatio.push(outcome.wireBytes / (offsets.length * pieceBytes));
}

/** Aligned places, each but once, so that what was written is what has changed. */
function randomOffsets(count: number, pieceBytes: number, sizeBytes: number): number[] {
  const places = new Set<number>();
  while (places.size < count) places.add(randomBelow(systemRandom, sizeBytes / pieceBytes));
  return [...places].map((place) => place * pieceBytes);
}

function print(cases: readonly Case[]): void {
  console.table(
    cases.map(({ disk, pieceBytes, changeBytes, cutMs, cycleMs, wireRatio }) => ({
      'disk, GiB': disk.sizeBytes / GIB,
      'pieces, KiB': pieceBytes / KIB,
      'changed, MB': Number((changeBytes / 1e6).toFixed(1)),
      'wire / changed': Number(Math.max(...wireRatio).toFixed(4)),
      'cut, ms': Math.round(median(cutMs)),
      'cycle, ms (median)': Math.round(median(cycleMs)),
      least: Math.round(Math.min(...cycleMs)),
      most: Math.round(Math.max(...cycleMs)),
    })),
  );
  for (const pieceBytes of [64 * KIB, 4 * KIB]) {
    const [whole, onSmall, tenth] = cases.filter((one) => one.pieceBytes === pieceBytes);
    const ratioOf = (one: Case) => median(one.cycleMs) / median(whole!.cycleMs);
    const wire = atMost(Math.max(...whole!.wireRatio), WIRE_TARGETS[pieceBytes]!);
    console.log(`${pieceBytes / KIB} KiB: bytes on the wire for each byte changed ${wire}`);
    console.log(
      `  the same change on a disk an eighth as large takes ${ratioOf(onSmall!).toFixed(2)} of the time`,
    );
    console.log(`  a tenth of the change on the same disk takes ${ratioOf(tenth!).toFixed(2)} of the time`);
  }
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? ROUNDS));
}
