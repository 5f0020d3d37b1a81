import { systemClock } from '../../src/lib/clock.ts';
import { failoverSite } from '../../test/support/failover-site.ts';
import {
  failOverInTurn,
  type PointHistory,
  receiveHistories,
  timesOfYoung,
} from '../../test/support/point-histories.ts';
import type { CleanUp } from '../../test/support/temporary.ts';
import { between, median } from '../support/figures.ts';

/** What is compared with the others: a replica that has received few points and still has them all. */
const YOUNG = 5;
/** How many points are retained of the many that were received. */
const RETAINED = [128, 60] as const;
/** The time of a failover after many points against that after few. */
const RATIO_TARGET = { least: 0.8, most: 1.2 } as const;

/** Failovers of one machine whose replica has received 5 points, and many. */
export async function compareHistories(scope: CleanUp, rounds: number, received: number): Promise<void> {
  const site = await failoverSite(scope);
  const startMs = systemClock.monotonicMs();
  const histories = await receiveHistories(scope, site, { young: YOUNG, received, retained: RETAINED });
  const minutes = (systemClock.monotonicMs() - startMs) / 60_000;
  console.log(`${received} points were made and received in ${minutes.toFixed(1)} minutes`);
  await failOverInTurn(site, histories, rounds);
  print(histories);
}

function print(histories: readonly PointHistory[]): void {
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
  const { received: few } = histories[0]!;
  for (const { history, ratios } of timesOfYoung(histories)) {
    const { least, most } = RATIO_TARGET;
    console.log(
      `${history.received} points received, ${history.retained} retained: a failover takes of the time with ${few} ` +
        between(median(ratios), least, most, 2),
    );
  }
}
