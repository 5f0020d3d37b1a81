/** What a replica knows of its branches after one could not be made, or not be removed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { createBranch, removeBranch } from '../../../src/replica/index.ts';
import { copy } from '../../support/seed-acts.ts';
import { seedSites } from '../../support/seed-sites.ts';

/** Directories below `branches` cannot be made durable. */
const UNSYNCED: FileSystem = {
  ...nodeFiles,
  syncDirectory: async (path) => {
    if (!path.includes('/branches')) return nodeFiles.syncDirectory(path);
    throw fileFailure('sync', path, Object.assign(new Error('the device fails'), { code: 'EIO' }));
  },
};

test('S0.17 a branch whose files are gone is none, also if its making or its removal failed', async (t) => {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await copy(sites, box);
  const replica = sites.replicas.need(box.machine.record.machineId);
  const { pointId } = replica.points[0]!.statement;
  const make = (files: FileSystem) => {
    const branchId = newId(systemClock, systemRandom);
    return createBranch(files, replica, { branchId, pointId, purpose: 'failover', createdAtMs: 0 });
  };
  await assert.rejects(make(UNSYNCED), { message: /the device fails/ });
  assert.deepEqual(replica.branches, []);
  const { branchId } = await make(nodeFiles);
  assert.equal(replica.branches.length, 1);
  await assert.rejects(removeBranch(UNSYNCED, replica, branchId), { message: /the device fails/ });
  assert.deepEqual(replica.branches, []);
});
