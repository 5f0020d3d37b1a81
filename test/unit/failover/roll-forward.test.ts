/** What becomes of a branch that has been left for a later point. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { discardLeft } from '../../../src/failover/roll-forward.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { createBranch } from '../../../src/replica/index.ts';
import { FAILS, PASSES } from '../../support/branch-site.ts';
import { copy } from '../../support/seed-acts.ts';
import { seedSites } from '../../support/seed-sites.ts';
import { threePoints } from '../../support/three-points.ts';

/** Nothing can be removed. */
const READ_ONLY: FileSystem = {
  ...nodeFiles,
  removeDirectory: async (path) => {
    throw fileFailure('write', path, Object.assign(new Error('read-only'), { code: 'EROFS' }));
  },
};

test('S0.24 what was written is discarded only where the later point is known to work, and a removal that fails costs nothing', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await copy(sites, box);
  const replica = sites.replicas.need(box.machine.record.machineId);
  await replica.update({ retention: { types: { crash: 3 } } });
  const { pointId } = replica.points[0]!.statement;
  const make = (purpose: 'test' | 'failover') =>
    createBranch(nodeFiles, replica, {
      ...{ branchId: newId(systemClock, systemRandom), pointId, purpose, createdAtMs: 0 },
    });
  const branch = await make('failover');
  const warnings: string[] = [];
  const run = { warn: (said: readonly string[]) => warnings.push(...said) };
  const left = (verdict: 'passed' | 'unproven', files = nodeFiles) =>
    discardLeft(files, replica, branch, { verdict, run });

  assert.equal(await left('unproven'), 'kept');
  assert.equal(await left('passed', READ_ONLY), 'kept');
  assert.equal(replica.branches.length, 1);
  assert.deepEqual(
    warnings.map((said) => said.match(/nothing has shown|read-only/)?.[0]),
    ['nothing has shown', 'read-only'],
  );
  assert.equal(await left('passed'), 'discarded');
  assert.deepEqual(replica.branches, []);
  // In a test nobody works.
  assert.equal(
    await discardLeft(nodeFiles, replica, await make('test'), { verdict: 'unproven', run }),
    'discarded',
  );
});

test('S0.24 what was left is not brought back beside a machine of the later point that could not be ended', async (t) => {
  const { failovers, replica, ran, at, processes } = await threePoints(t);
  const { pointId } = replica.points[0]!.statement;
  const word = { confirmedOtherSideDown: true, probes: PASSES } as const;
  const { branchId } = await failovers.start(replica, { pointId }, word);
  at('run', async () => {
    // As one that waits for storage, which no signal ends.
    t.mock.method(process, 'kill', () => true);
  });
  const options = { oldBranch: 'keep', graceMs: 10_000, probes: FAILS } as const;
  await assert.rejects(failovers.forward(replica, branchId!, options), { code: 'MACHINE_END_FAILED' });
  assert.deepEqual([ran, (await processes()).length], [[1, 2], 1]);
  const views = await failovers.list(replica);
  assert.deepEqual(
    views.map(({ phase, running }) => [phase, running]),
    [
      ['stopped', false],
      ['failed', true],
    ],
  );
});
