/** `vm remove`: a machine goes wholly, or is what it was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MachineActs } from '../../../src/control/acts/machine-acts.ts';
import { Inventory } from '../../../src/control/inventory/inventory.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { eventually } from '../../support/eventually.ts';
import { type FencedSite, fencedSite } from '../../support/fenced-site.ts';

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

/** The acts of a person at a site with these replicas. */
function actsOf({ machines, diverged }: FencedSite, replicas: object) {
  const inventory = new Inventory({ machines, replicas } as unknown as ConstructorParameters<
    typeof Inventory
  >[0]);
  return new MachineActs({
    ...{ machines, diverged, inventory, groups: { of: () => undefined } },
    ...{ tokens: { remove: async () => undefined }, alerts: { clearMachine: () => undefined } },
    ...{ fences: { look: () => undefined } },
    audit: { acting: (_act: unknown, work: () => Promise<unknown>) => work() },
  } as unknown as ConstructorParameters<typeof MachineActs>[0]);
}

test('F4 S0.17 a replica that cannot be read counts: the machine that lies upon it is not removed, and one that may be older is not taken back', async (t) => {
  const site = await fencedSite(t);
  const { machine, machines, machineId } = site;
  const error = libFailure('DISK_FULL', 'its files cannot be read');
  const replicas = { get: () => undefined, list: () => [], broken: [{ machineId, error }] };
  const acts = actsOf(site, replicas);
  await assert.rejects(acts.unprotect('me', machineId, { confirmOtherSideDown: true }), error);
  assert.equal(machine.right.tenure.state, 'fenced');
  Object.assign(machine.record, { adopted: { branchId: 'branch', pointId: 'point' }, protection: null });
  await assert.rejects(acts.remove('me', machineId), error);
  assert.equal(machines.get(machineId)?.machine, machine);
  assert.ok(await nodeFiles.sizeOf(machine.layout.record));
  replicas.broken.pop();
  await acts.remove('me', machineId);
  assert.equal(machines.get(machineId), undefined);
});

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
