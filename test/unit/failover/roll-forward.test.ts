/** What becomes of a branch that has been left for a later point. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { discardLeft } from '../../../src/failover/roll-forward.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { createBranch } from '../../../src/replica/index.ts';
import { copy } from '../../support/seed-acts.ts';
import { seedSites } from '../../support/seed-sites.ts';

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
