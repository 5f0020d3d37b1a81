/** The tables of steps in docs/failover.md against what reports have the time of. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TAKE_STEPS, TEST_STEPS, UNDO_STEPS, UNPLANNED_STEPS } from '../../../src/failover/index.ts';
import { undoFailover } from '../../../src/failover/undo.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import type { Replica, ReplicaRecord } from '../../../src/replica/index.ts';
import { branchSite, PASSES } from '../../support/branch-site.ts';

test('F5 S0.26 the steps of tests and failovers stand in docs/failover.md in the order in which they are done', async (t) => {
  const namesOf = async (purpose: 'test' | 'failover') => {
    const { boot, live, branch } = await branchSite(t, purpose, /^$/);
    const { report } = await boot({ probes: PASSES, isNew: true });
    await live.end(report.branchId);
    await live.end(branch.branchId);
    return report.steps.map(({ name }) => name);
  };
  // Its point claims nothing that could be asked.
  const asked = TEST_STEPS.map(({ name }) => name).filter((name) => name !== 'assertions');
  assert.deepEqual(await namesOf('test'), asked);
  const broughtUp = await namesOf('failover');
  // The right comes before the first branch, whichever of the two it is.
  for (const steps of [UNPLANNED_STEPS, TAKE_STEPS])
    assert.deepEqual(
      ['fence', ...broughtUp],
      steps.map(({ name }) => name),
    );
});

test('F4 the steps of an undoing stand in docs/failover.md in the order in which they are done', async () => {
  const record = {
    ...{ machineId: 'm', machineName: 'db', sourceSiteId: 'P', epoch: 2 },
    tenure: { state: 'holds', claim: { epoch: 2, siteId: 'R' } },
  } as ReplicaRecord;
  const replica = {
    ...{ record, branches: [] },
    update: async (change: (before: ReplicaRecord) => Partial<ReplicaRecord>) => {
      replica.record = { ...replica.record, ...change(replica.record) };
    },
  };
  const tools = { clock: systemClock, log: silentLog, siteId: 'R' };
  const { steps } = await undoFailover(tools, replica as unknown as Replica, async () => 'not-running');
  const names = [...steps.map(({ name }) => name), 'withdraw'];
  assert.deepEqual(
    names,
    UNDO_STEPS.map(({ name }) => name),
  );
});
