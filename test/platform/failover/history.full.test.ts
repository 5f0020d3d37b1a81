/** What the points that a replica has received in its life cost a failover: nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { failoverSite } from '../../support/failover-site.ts';
import { failOverInTurn, receiveHistories } from '../../support/point-histories.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const YOUNG = 5;
const LIMIT = { timeout: sizedLimitMs({ normal: 600_000, full: 7_200_000 }) };

test(
  'S0.15 after hundreds of points, of which 60 are retained unmerged, a failover takes the time that it takes after five',
  LIMIT,
  async (t) => {
    const received = sized({ what: 'S0.15: points received', normal: 40, full: 500 });
    const retained = sized({ what: 'S0.15: of them retained', normal: 12, full: 60 });
    const rounds = sized({ what: 'S0.15: failovers of each', normal: 5, full: 9 });
    const site = await failoverSite(t);
    const histories = await receiveHistories(t, site, { young: YOUNG, received, retained: [retained] });
    for (const { replica, retained: still, received: until } of histories) {
      const there = replica.points.map(({ statement }) => statement.sequence);
      const newest = Array.from({ length: still }, (_, index) => until - still + 1 + index);
      assert.deepEqual(there, newest, 'what is retained is there, each as a point of its own');
    }
    await failOverInTurn(site, histories, rounds);
    // What else a host does only adds to a boot: the quickest of each are compared.
    const [fewMs, manyMs] = histories.map(({ failovers }) => {
      const times = failovers.map(({ rtoMs }) => Math.round(rtoMs));
      t.diagnostic(`${times.join(', ')} ms`);
      return Math.min(...times);
    }) as [number, number];
    const ratio = manyMs / fewMs;
    t.diagnostic(`after ${received} points a failover takes ${ratio.toFixed(2)} of the time after ${YOUNG}`);
    assert.ok(ratio >= 0.8 && ratio <= 1.2, `${manyMs} ms against ${fewMs} ms`);
  },
);
