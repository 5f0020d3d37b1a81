/** A report says that a person has chosen a point only where one has. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { FailoverRequest, GroupPointView, JobView, PlanRun } from '../../../src/api/index.ts';
import { reasonOf } from '../../../src/control/acts/failover-acts.ts';
import { GroupFailovers } from '../../../src/control/acts/group-failovers.ts';
import { chosen } from '../../../src/control/acts/plan-machines.ts';
import { PASSES } from '../../support/branch-site.ts';
import { threePoints } from '../../support/three-points.ts';

const WORD = { confirmedOtherSideDown: true } as const;

it('F5 F9 the report of a failover says who chose its point, and why', async (t) => {
  for (const why of [undefined, 'of cut 7 of its group']) {
    const { failovers, replica } = await threePoints(t);
    const { pointId } = replica.points[1]!.statement;
    const choice = { pointId, ...(why === undefined ? {} : { why }) };
    const { chosenBy, attempts, point } = await failovers.start(replica, choice, { ...WORD, probes: PASSES });
    assert.deepEqual(
      [chosenBy, attempts[0]!.reason, point.pointId],
      why === undefined ? ['person', 'named by a person', pointId] : ['selection', why, pointId],
    );
  }
});

it('F5 F9 the report of a branch that is booted again says that nobody has chosen its point, and who began it', async (t) => {
  for (const [actor, reason] of [
    ['operator:a', 'restarted by a person'],
    ['plan:7', 'restarted by run 7 of a plan'],
  ] as const) {
    const { failovers, replica } = await threePoints(t);
    const { branchId } = await failovers.start(replica, { wish: {} }, { ...WORD, probes: PASSES });
    await failovers.stop(replica, branchId!, { graceMs: 0 });
    const options = { probes: PASSES, reason: reasonOf({ actor }) };
    const { chosenBy, attempts, point } = await failovers.restart(replica, branchId!, options);
    const newest = replica.newest!.statement.pointId;
    assert.deepEqual([chosenBy, attempts[0]!.reason, point.pointId], ['selection', reason, newest]);
  }
});

it('F5 F9 what a plan or a group takes from one cut was named by nobody, unless a person names the cut', async () => {
  const run = {
    ...{ request: { mode: 'unplanned' }, document: { plan: 'shop', machines: { db: {}, web: {} } } },
    steps: [{ machine: 'db', machineId: 'd', state: 'waiting', pointId: 'p', cutId: '7' }],
  } as unknown as PlanRun;
  assert.deepEqual(chosen(run, 'db'), { point: 'p', why: 'of cut 7 of its group' });
  assert.deepEqual(chosen(run, 'web'), {});

  const asked: unknown[] = [];
  const begin = async (_actor: string, _machine: string, request: Partial<FailoverRequest>) => {
    asked.push(request);
    return {} as JobView;
  };
  const cut = { cutId: '7', members: [{ machineId: 'db', name: 'db', pointId: 'p' }] };
  const group = new GroupFailovers({
    groups: { points: async () => [cut as unknown as GroupPointView] },
    inventory: { replica: () => ({}) as never },
    failovers: { test: begin, start: begin, checkTogether: async () => undefined, hasWitness: () => false },
  });
  await group.test('a', 'pair', {});
  await group.test('a', 'pair', { cut: '7' });
  assert.deepEqual(asked, [{ point: '7', why: 'of the newest whole cut of its group' }, { point: '7' }]);
});
