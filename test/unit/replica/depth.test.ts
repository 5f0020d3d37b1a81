/** How deep a chain may become, and what is refused for that. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import type { RetentionPolicy } from '../../../src/recovery-point/index.ts';
import { deepChain, depthToBe } from '../../../src/replica/depth.ts';
import { type BranchRecord, createBranch, holdPoint, type Replica } from '../../../src/replica/index.ts';
import { copy } from '../../support/seed-acts.ts';
import { seedSites } from '../../support/seed-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

const REASON = { reason: 'audit', sinceMs: 0 };
const NONE_PROVEN = () => false;

async function replicaOf(t: CleanUp, points: number, places: number): Promise<Replica> {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  for (let point = 0; point < points; point++) {
    await box.write(point * 65_536);
    await copy(sites, box);
  }
  const replica = sites.replicas.need(box.machine.record.machineId);
  await replica.update({ retention: placesFor(places) });
  return replica;
}

/** Places that the points there are, all of type `crash`, fill but for one. */
function placesFor(places: number): RetentionPolicy {
  return { types: { crash: 1, app: places - 1 } };
}

function verdicts(replica: Replica) {
  return replica.retention(replica.record.retention, NONE_PROVEN);
}

async function hold(replica: Replica, index: number): Promise<string> {
  const { pointId } = replica.points[index]!.statement;
  await holdPoint(nodeFiles, replica, pointId, REASON, async () => verdicts(replica));
  return pointId;
}

function branch(replica: Replica, index: number, purpose: BranchRecord['purpose']) {
  const { pointId } = replica.points[index]!.statement;
  const branchId = newId(systemClock, systemRandom);
  return createBranch(nodeFiles, replica, { branchId, pointId, purpose, createdAtMs: 0 });
}

test('S0.15 what is kept comes on top of the places of the policy, and of more than them', () => {
  const point = (pointId: string, ...reasons: ['held' | 'in-use' | 'newest' | 'group'] | []) => ({
    pointId,
    reasons,
  });
  const points = [point('gone'), point('held', 'held'), point('used', 'in-use'), point('newest', 'newest')];
  const layers = (places: number, also?: string) => depthToBe(points, placesFor(places), also).layers;
  assert.equal(layers(12), 14);
  assert.equal(layers(12, 'gone'), 15);
  assert.equal(layers(12, 'held'), 14);
  const group = Array.from({ length: 20 }, (_, index) => point(`group-${index}`, 'group'));
  assert.equal(depthToBe([...points, ...group], placesFor(12)).layers, 2 + 21);
});

test('S0.15 points are held as long as the chain does not become deeper than 128 with them', async (t) => {
  const replica = await replicaOf(t, 4, 126);
  assert.equal(
    deepChain(replica, verdicts(replica)),
    undefined,
    'the policy alone is nobody to be warned of',
  );
  const first = await hold(replica, 0);
  await hold(replica, 1);
  await assert.rejects(hold(replica, 2), {
    code: 'REPLICA_TOO_DEEP',
    message: /129 layers: 3 points held or in use, 126 places of the policy; at most 128/,
  });
  assert.ok(!replica.points[2]!.manifest.held);
  assert.equal(deepChain(replica, verdicts(replica))?.code, 'REPLICA_DEEP');
  // Who holds a point already may say why anew.
  await hold(replica, 1);
  await holdPoint(nodeFiles, replica, first, undefined, async () => verdicts(replica));
  await hold(replica, 2);
  assert.equal(await replica.retire(replica.record.retention, NONE_PROVEN), 1);
  const left = replica.points.map(({ manifest }) => manifest.hold?.reason);
  assert.deepEqual(left, ['audit', 'audit', undefined], 'what is held stays');
});

test('S0.15 a rehearsal is refused when the chain becomes too deep with it; a failover never is', async (t) => {
  const replica = await replicaOf(t, 3, 142);
  await branch(replica, 0, 'test');
  await branch(replica, 1, 'prepared');
  for (const purpose of ['test', 'prepared'] as const)
    await assert.rejects(branch(replica, 2, purpose), { code: 'REPLICA_TOO_DEEP' });
  assert.equal(replica.branches.length, 2, 'nothing is left of those');
  await branch(replica, 2, 'failover');
  assert.match(deepChain(replica, verdicts(replica))!.message, /3 points held or in use/);
  assert.equal(await replica.retire({ types: {} }, NONE_PROVEN), 0, 'what is in use stays');
});
