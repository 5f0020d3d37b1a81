/** A machine that runs, and whose boot the site did not see to its end: its guest is asked once more, and left as it is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failovers } from '../../../src/failover/index.ts';
import { failoverSite } from '../../support/failover-site.ts';
import { lastFirst } from '../../support/last-first.ts';

test('F5 the guest of a machine that an earlier process has started answers its gates, or does not, and runs on', {
  timeout: 120_000,
}, async (context) => {
  const t = lastFirst(context);
  const site = await failoverSite(t);
  await site.point();
  const { replica } = site;
  const report = await site.failovers.start(replica, {}, { confirmedOtherSideDown: true, probes: [] });
  const branchId = report.branchId!;
  await site.failovers.close();
  const next = new Failovers(site.tools);
  t.after(() => next.close());
  const { signal } = new AbortController();
  assert.equal(
    await next.probeAgain(replica, branchId, undefined, signal),
    undefined,
    'nobody is connected to it',
  );
  await next.recover([replica]);
  const gates = [{ kind: 'agent' }, { kind: 'serial', pattern: '^lab guest up' }] as const;
  const results = await next.probeAgain(replica, branchId, gates, signal);
  assert.deepEqual(
    results!.map(({ passed, reason }) => [passed, reason]),
    gates.map(() => [true, undefined]),
  );
  const [up] = await next.list(replica);
  assert.deepEqual([up!.phase, up!.running], ['probed', true]);
  const silent = [{ kind: 'serial', pattern: 'never said', limitMs: 200 }] as const;
  const [refused] = (await next.probeAgain(replica, branchId, silent, signal))!;
  assert.match(refused!.reason!, /no success within 200 ms/);
  assert.equal((await next.list(replica))[0]!.running, true);
});
