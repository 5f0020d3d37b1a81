import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { endBranchMachine } from '../../src/failover/branch-machine.ts';
import { randomBelow, systemRandom } from '../../src/lib/random.ts';
import { type Replica, Replicas } from '../../src/replica/index.ts';
import type { FailoverSite } from './failover-site.ts';
import type { CleanUp } from './temporary.ts';
import { writePieces } from './tip-writer.ts';

/** Where the guest keeps no file system: its ledger's area on each disk, 16 MiB of which are written to here. */
const SCRATCH = { system: 360_448 * 512, data: 2_048 * 512 } as const;
const SCRATCH_BYTES = 16 * 1024 * 1024;
const PIECE_BYTES = 4096;
const PIECES_OF_POINT = 4;

/** Changes `pieces` random places of 4 KiB on each disk of the stopped machine. It boots as before. */
export async function change({ sites, machine }: FailoverSite, pieces: number): Promise<void> {
  for (const disk of ['system', 'data'] as const) {
    const places = Array.from({ length: pieces }, () =>
      randomBelow(systemRandom, SCRATCH_BYTES / PIECE_BYTES),
    );
    const offsets = places.map((place) => SCRATCH[disk] + place * PIECE_BYTES);
    await writePieces(sites.directory, machine.chain(disk).at(-1)!.path, offsets, PIECE_BYTES);
  }
}

export interface FailoverFigures {
  /** From the command until the guest agent answered. */
  readonly rtoMs: number;
  /** Of that, our own acts before the guest's CPUs run, the start of QEMU among them. */
  readonly actsMs: number;
}

/** Fails over to the point and removes the branch again. */
export async function failOver(
  { failovers }: FailoverSite,
  replica: Replica,
  pointId: string,
): Promise<FailoverFigures> {
  const report = await failovers.start(replica, { pointId }, { confirmedOtherSideDown: true });
  if (report.branchId) await failovers.cleanup(replica, report.branchId);
  if (report.rtoMs === null) throw new Error(`the failover failed: ${JSON.stringify(report.attempts)}`);
  const acts = report.steps.filter(({ name }) => ['fence', 'branch', 'network', 'start'].includes(name));
  return { rtoMs: report.rtoMs, actsMs: acts.reduce((sum, { durationMs }) => sum + durationMs, 0) };
}

/** A replica that has received so many points in its life and has some of them still, and failovers to its newest one. */
export interface PointHistory {
  readonly received: number;
  readonly retained: number;
  readonly replica: Replica;
  readonly pointId: string;
  readonly failovers: FailoverFigures[];
}

export interface HistoriesWanted {
  /** What is compared with the others: so many were received, and all are there. */
  readonly young: number;
  readonly received: number;
  /** How many are retained of those that were received; descending, because each is merged from the one before. */
  readonly retained: readonly [number, ...number[]];
}

/**
 * One machine's points, received one by one. What is wanted is kept as copies of the replica's directory, so that failovers of
 * either can be measured in turn; the young one is the first.
 */
export async function receiveHistories(
  scope: CleanUp,
  site: FailoverSite,
  { young, received, retained }: HistoriesWanted,
): Promise<readonly PointHistory[]> {
  const histories: PointHistory[] = [];
  for (let count = 1; count <= received; count++) {
    await change(site, PIECES_OF_POINT);
    await site.point();
    await retain(site.replica, retained[0]);
    if (count === young) histories.push(await kept(scope, site, count));
  }
  for (const points of retained) {
    await retain(site.replica, points);
    histories.push(await kept(scope, site, received));
  }
  return histories;
}

/** Fails over to the newest point of each in turn, so often; all of them meet the same host. */
export async function failOverInTurn(
  site: FailoverSite,
  histories: readonly PointHistory[],
  rounds: number,
): Promise<void> {
  // The first boot finds nothing in the page cache; it is nobody's measurement.
  await failOver(site, histories[0]!.replica, histories[0]!.pointId);
  for (let round = 0; round < rounds; round++) {
    for (const { replica, pointId, failovers } of histories) {
      failovers.push(await failOver(site, replica, pointId));
    }
  }
}

/** For each of the others: what a failover takes of the time that one of the young replica takes, round by round. */
export function timesOfYoung([young, ...others]: readonly PointHistory[]): readonly {
  readonly history: PointHistory;
  readonly ratios: readonly number[];
}[] {
  return others.map((history) => ({
    history,
    ratios: history.failovers.map(({ rtoMs }, round) => rtoMs / young!.failovers[round]!.rtoMs),
  }));
}

async function retain(replica: Replica, points: number): Promise<void> {
  await replica.retire({ types: { crash: points, app: 0 } }, () => false);
}

/** A replica of its own, which holds what the site's holds now; its newest point is failed over. */
async function kept(
  scope: CleanUp,
  { sites, replica, tools }: FailoverSite,
  received: number,
): Promise<PointHistory> {
  const retained = replica.points.length;
  const directory = join(sites.directory, `received-${received}-retained-${retained}`);
  await cp(join(sites.directory, 'r'), directory, { recursive: true });
  const copy = (await Replicas.open(sites.replicaTools, directory)).list()[0]!;
  scope.after(async () => {
    for (const { branchId } of copy.branches) await endBranchMachine(tools, branchId);
  });
  const { pointId } = copy.points.at(-1)!.statement;
  const layers = copy.chain(pointId, 'system').length;
  if (layers !== retained) throw new Error(`the chain has ${layers} layers for ${retained} points`);
  return { received, retained, replica: copy, pointId, failovers: [] };
}
