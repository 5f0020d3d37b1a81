/** What a cut of a group is worth when the claim of one of its points was refuted. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { PlanDocument } from '../../../src/api/index.ts';
import { GroupActs } from '../../../src/control/acts/group-acts.ts';
import { BootsOfPoints } from '../../../src/control/acts/plan-proofs.ts';
import { pointsOfCuts } from '../../../src/control/plans/plan-cuts.ts';
import { storeApplicationProof } from '../../../src/failover/application-proof.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import type { Consistency } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { ReplicaLayout } from '../../../src/replica/layout.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const DIGEST = 'a'.repeat(64);

/** Two cuts of one machine, both application-consistent by their statements; what the newer one claims was refuted. */
async function refuted(t: CleanUp) {
  const layout = new ReplicaLayout(await temporaryDirectory(t), newId(systemClock, systemRandom));
  const points = [1, 2].map((sequence) => ({
    statement: {
      ...{ pointId: newId(systemClock, systemRandom), sequence, machineId: 'db', machineName: 'db' },
      ...{ copyType: 'database', consistency: 'application', assertions: [{ name: 'whole' }] },
    },
    statementDigest: DIGEST,
    manifest: { cutAtHereMs: sequence, receivedBytes: 1 },
  }));
  const replica = { layout, points, record: { machineId: 'db' } } as unknown as Replica;
  const { pointId } = points[1]!.statement;
  const signer = { keyId: 'test', sign: () => Buffer.alloc(64) };
  await storeApplicationProof({ files: nodeFiles, signer }, replica, {
    ...{ pointId, statementDigest: DIGEST, verdict: 'failed', startedAtMs: 0 },
    assertions: [{ name: 'whole', outcome: 'failed', tookMs: 1 }],
  });
  const cuts = points.map((point, i) => ({
    group: { groupId: 'g', groupName: 'pair', cutId: `cut ${i + 1}`, pauseMs: 1, members: [] },
    points: [{ ...point.statement, replica, point }],
  }));
  const acts = new GroupActs({
    ...{ groups: { find: () => undefined }, points: { all: () => cuts }, files: nodeFiles },
    keeper: { reasons: async () => new Map() },
  } as unknown as ConstructorParameters<typeof GroupActs>[0]);
  const boots = new BootsOfPoints(nodeFiles);
  const plan: PlanDocument = { plan: 'shop', oneCut: ['pair'], machines: { db: {} } };
  const taken = async (atLeast: Consistency) => {
    const chosen = await pointsOfCuts(plan, {
      ...{ points: (group) => acts.points(group), idOf: () => 'db', upFrom: async () => undefined },
      ...{ hasFailed: (_, point) => boots.hasFailed(replica, point), atLeast: () => atLeast },
    });
    return chosen.get('db')?.cutId;
  };
  return { acts, taken, cuts };
}

it('S0.6 S0.28 a cut counts as crash-consistent if the claim of one of its points was refuted', async (t) => {
  const { acts } = await refuted(t);
  const found = (await acts.points('pair')).map(({ cutId, consistency }) => [cutId, consistency]);
  assert.deepEqual(found, [
    ['cut 1', 'application'],
    ['cut 2', 'crash'],
  ]);
});

it('F5 S0.6 a plan takes a cut of which nothing was refuted, and another one only if there is none and it asks for no more', async (t) => {
  const { taken, cuts } = await refuted(t);
  assert.equal(await taken('application'), 'cut 1');
  assert.equal(await taken('crash'), 'cut 1');
  cuts.shift();
  assert.equal(await taken('crash'), 'cut 2');
  await assert.rejects(taken('application'), { code: 'PLAN_CUT_MISSING' });
});
