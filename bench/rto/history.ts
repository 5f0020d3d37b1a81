import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { endBranchMachine } from '../../src/failover/branch-machine.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { type Replica, Replicas } from '../../src/replica/index.ts';
import { type FailoverSite, failoverSite } from '../../test/support/failover-site.ts';
import type { CleanUp } from '../../test/support/temporary.ts';
import { between, median } from '../support/figures.ts';
import { change, type FailoverFigures, failOver } from './points.ts';

/** What is compared with the others: a replica that has received few points and still has them all. */
const YOUNG = 5;
/** How many points are retained of the many that were received; descending, because each is merged from the one before. */
const RETAINED = [128, 60] as const;
/** The time of a failover after many points against that after few. */
const RATIO_TARGET = { least: 0.8, most: 1.2 } as const;
const PIECES_OF_POINT = 4;

interface History {
  readonly received: number;
  readonly retained: number;
  readonly replica: Replica;
  readonly pointId: string;
  readonly failovers: FailoverFigures[];
}

/**
 * Failovers of one machine whose replica has received 5 points, and many. Replicas are received once and then kept as
 * copies of their directories, so that failovers of either can be measured in turn.
 */
export async function compareHistories(scope: CleanUp, rounds: number, received: number): Promise<void> {
  const site = await failoverSite(scope);
  const startMs = systemClock.monotonicMs();
  const histories = await receive(scope, site, received);
  const minutes = (systemClock.monotonicMs() - startMs) / 60_000;
  console.log(`${received} points were made and received in ${minutes.toFixed(1)} minutes`);
  // The first boot finds nothing in the page cache; it is nobody's measurement.
  await failOver(site, histories[0]!.replica, histories[0]!.pointId);
  for (let round = 0; round < rounds; round++) {
    for (const { replica, pointId, failovers } of histories) {
      failovers.push(await failOver(site, replica, pointId));
    }
  }
  print(histories);
}

async function receive(scope: CleanUp, site: FailoverSite, received: number): Promise<readonly History[]> {
  const histories: History[] = [];
  const keep = async (count: number) => {
    histories.push(await kept(scope, site, count));
  };
  for (let count = 1; count <= received; count++) {
    await change(site, PIECES_OF_POINT);
    await site.point();
    await retain(site.replica, RETAINED[0]);
    if (count === YOUNG) await keep(count);
  }
  for (const points of RETAINED) {
    await retain(site.replica, points);
    await keep(received);
  }
  return histories;
}

async function retain(replica: Replica, points: number): Promise<void> {
  await replica.retire({ types: { crash: points, app: 0 } }, () => false);
}

/** A replica of its own, which holds what the site's holds now; its newest point is failed over. */
async function kept(
  scope: CleanUp,
  { sites, replica, tools }: FailoverSite,
  received: number,
): Promise<History> {
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

function print(histories: readonly History[]): void {
  console.table(
    histories.map(({ received, retained, failovers }) => {
      const times = failovers.map(({ rtoMs }) => rtoMs);
      return {
        'points received': received,
        'of them retained': retained,
        'failover, ms (median)': Math.round(median(times)),
        'of it before the CPUs run': Math.round(median(failovers.map(({ actsMs }) => actsMs))),
        'failover, least': Math.round(Math.min(...times)),
        'failover, most': Math.round(Math.max(...times)),
      };
    }),
  );
  const [young, ...old] = histories;
  for (const { received, retained, failovers } of old) {
    const ratio = median(failovers.map(({ rtoMs }, round) => rtoMs / young!.failovers[round]!.rtoMs));
    const { least, most } = RATIO_TARGET;
    console.log(
      `${received} points received, ${retained} retained: a failover takes of the time with ${young!.received} ` +
        between(ratio, least, most, 2),
    );
  }
}
