/** `vm remove`: a machine goes wholly, or is what it was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { libFailure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { eventually } from '../../support/eventually.ts';
import { fencedSite } from '../../support/fenced-site.ts';

/** Files whose directories do not go as long as the disk is full. */
function fullDisk() {
  const disk = { isFull: false };
  const files: FileSystem = {
    ...nodeFiles,
    removeDirectory: async (path) => {
      if (disk.isFull) throw libFailure('DISK_FULL', `cannot remove ${path}`);
      await nodeFiles.removeDirectory(path);
    },
  };
  return { files, disk };
}

test('F4 S0.17 a machine whose removal fails half way is looked after as before: what fences it afterwards is seen', async (t) => {
  const { files, disk } = fullDisk();
  const { machines, machine, machineId, alerts, claimSiteId } = await fencedSite(t, files);
  await machines.unprotect(machine, { overrules: true });
  await machine.right.tellSuperseded({
    siteId: claimSiteId,
    rights: { claim: async (_machineId, claim) => ({ claim, state: 'follows' }) },
  } as Parameters<typeof machine.right.tellSuperseded>[0]);
  disk.isFull = true;
  await assert.rejects(machines.remove(machine), { code: 'DISK_FULL' });
  assert.equal(machines.get(machineId)?.machine, machine);
  assert.ok(machines.loopOf(machine));
  await machine.right.hear({ epoch: 9, siteId: claimSiteId });
  assert.equal(await eventually(async () => alerts.get(`fenced:${machineId}`)), 'PROTECTION_FENCED');
  disk.isFull = false;
  await machines.remove(machine);
  assert.equal(machines.get(machineId), undefined);
});
