/** `vm remove`: a machine goes wholly, or is what it was. */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { MachineActs } from '../../../src/control/acts/machine-acts.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import { Inventory } from '../../../src/control/inventory/inventory.ts';
import { checkMayGo } from '../../../src/control/machines/machine-removal.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { ProtectedMachine } from '../../../src/replication/index.ts';
import { eventually } from '../../support/eventually.ts';
import { adoptedAgain, type FencedSite, fencedSite } from '../../support/fenced-site.ts';

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
function actsOf({ machines, diverged, alerts }: FencedSite, replicas: object) {
  const inventory = new Inventory({ machines, replicas } as unknown as ConstructorParameters<
    typeof Inventory
  >[0]);
  return new MachineActs({
    ...{ machines, diverged, inventory, groups: { of: () => undefined } },
    tokens: { remove: async () => undefined },
    alerts: {
      clear: (key: string) => void alerts.delete(key),
      clearMachine: (id: string) => {
        for (const key of alerts.keys()) if (key.includes(id)) alerts.delete(key);
      },
    },
    ...{ fences: { look: () => undefined } },
    audit: { acting: (_act: unknown, work: () => Promise<unknown>) => work() },
  } as unknown as ConstructorParameters<typeof MachineActs>[0]);
}

/** The other site is told that the machine was taken back here, and follows. */
const hears = ({ right }: ProtectedMachine, siteId: string) =>
  right.tellSuperseded({
    siteId,
    rights: { claim: async (_machineId, claim) => ({ claim, state: 'follows' }) },
  } as Parameters<typeof right.tellSuperseded>[0]);

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
  await hears(machine, claimSiteId);
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

/** Files that do something else before machines are listed for the first time. */
function listedLater() {
  const meanwhile: { act?: () => Promise<unknown> } = {};
  const files: FileSystem = {
    ...nodeFiles,
    list: async (path) => {
      const { act } = meanwhile;
      if (path.endsWith('/protected') && act) {
        delete meanwhile.act;
        await act();
      }
      return nodeFiles.list(path);
    },
  };
  return { files, meanwhile };
}

test('F4 S0.17 while a machine goes its older generation is one all the time, and its branch stays the object that it was', async (t) => {
  const { files, meanwhile } = listedLater();
  const site = await fencedSite(t, files);
  const { diverged, generations, machines, machineId } = site;
  const before = await site.branch();
  const test = await diverged.reading(machineId, before.branchId, (branch) => site.makeTest(branch));
  const adopted = await adoptedAgain(site);
  assert.equal(await site.branch(), before);
  let seen: unknown;
  meanwhile.act = async () => {
    seen = [await diverged.list(), (await generations.former(machineId)).length];
  };
  await machines.remove(adopted);
  assert.deepEqual(seen, [[before], 1]);
  const after = await site.branch();
  assert.equal(after, before);
  await after.refreshBranches();
  assert.deepEqual(
    after.branches.map(({ branchId }) => branchId),
    [test],
  );
});

test('F4 S0.17 what cannot be listed when a machine has gone is a machine that cannot be opened, and not none', async (t) => {
  const { files, meanwhile } = listedLater();
  const site = await fencedSite(t, files);
  const { machines, machineId, alerts } = site;
  const adopted = await adoptedAgain(site);
  const error = libFailure('DISK_FULL', 'nothing can be listed');
  meanwhile.act = () => Promise.reject(error);
  await machines.remove(adopted);
  assert.equal(machines.get(machineId), undefined);
  assert.deepEqual(machines.broken, [{ machineId, error }]);
  assert.equal(alerts.get(`machine:${machineId}`), 'DISK_FULL');
});

test('F4 S0.17 a machine that another site holds is not removed before it has ended here', async (t) => {
  const { machine, machines, machineId, claimSiteId } = await fencedSite(t);
  const { right } = machine;
  Object.assign(machine.record, { protection: null });
  const running = {} as ProtectedMachine['running'];
  const { record } = machine;
  for (const presence of [
    { state: 'running', processId: 1 },
    { state: 'unreachable', reason: 'its disks are in use' },
  ] as const)
    assert.throws(() => checkMayGo({ record, right, presence, running }, () => undefined), {
      code: 'MACHINE_STILL_RUNS',
      message: new RegExp(`site ${claimSiteId} holds it`),
    });
  const presence = { state: 'unreachable', reason: 'its disks are in use' } as const;
  assert.throws(() => checkMayGo({ record, right, presence, running: undefined }, () => undefined), {
    message: /: its disks are in use$/,
    hint: /cannot see whether it has ended/,
  });
  // One that is held here may run on.
  const runs = { state: 'running', processId: 1 } as const;
  const held = { ...record, tenure: undefined };
  checkMayGo({ record: held, right, presence: runs, running }, () => undefined);
  await machines.remove(machine);
  assert.equal(machines.get(machineId), undefined);
});

test('F4 S0.17 a machine that was taken back is not removed before the other site has heard of that, unless that one is gone for good', async (t) => {
  const { machine, machines, machineId, claimSiteId } = await fencedSite(t);
  await machines.unprotect(machine, { overrules: true });
  assert.deepEqual(machine.right.untold, [claimSiteId]);
  await assert.rejects(machines.remove(machine), { code: 'MACHINE_CLAIM_UNTOLD' });
  assert.ok(machines.get(machineId)?.loop);
  assert.ok(await nodeFiles.sizeOf(machine.layout.record));
  checkMayGo(machine, () => {
    throw controlFailure('SITE_PEER_UNKNOWN', 'it is not paired any more');
  });
  await hears(machine, claimSiteId);
  await machines.remove(machine);
  assert.equal(machines.get(machineId), undefined);
});

test('F4 S0.17 a start that waits for the end of a removal starts nothing', async (t) => {
  let starting: Promise<unknown> | undefined;
  const files: FileSystem = {
    ...nodeFiles,
    removeDirectory: async (path) => {
      if (path === machine.layout.directory)
        starting ??= assert.rejects(machines.start(machine), { code: 'MACHINE_CHANGING' });
      await sleep(systemClock, 20);
      await nodeFiles.removeDirectory(path);
    },
  };
  const { machines, machine, claimSiteId } = await fencedSite(t, files);
  await machines.unprotect(machine, { overrules: true });
  await hears(machine, claimSiteId);
  await machines.remove(machine);
  assert.ok(starting);
  await starting;
  assert.equal(await nodeFiles.list(dirname(machine.record.sockets.qmpPath)), undefined);
});

test('F4 S0.17 a machine that is to be protected while it goes is gone, and leaves nothing', async (t) => {
  let protecting: Promise<unknown> | undefined;
  const files: FileSystem = {
    ...nodeFiles,
    removeDirectory: async (path) => {
      if (path === machine.layout.directory)
        protecting ??= assert.rejects(machines.protect(machine, claimSiteId, {}), {
          code: 'MACHINE_CHANGING',
        });
      await nodeFiles.removeDirectory(path);
    },
  };
  const { machines, machine, claimSiteId } = await fencedSite(t, files);
  await machines.unprotect(machine, { overrules: true });
  await hears(machine, claimSiteId);
  await machines.remove(machine);
  assert.ok(protecting);
  await protecting;
  assert.equal(await nodeFiles.list(machine.layout.directory), undefined);
});

test('F4 S0.17 a machine that was started right before its removal is looked at again', async (t) => {
  let act: (() => void) | undefined;
  const files: FileSystem = {
    ...nodeFiles,
    list: async (path) => {
      if (act && path === machine.layout.directory) act();
      return nodeFiles.list(path);
    },
  };
  const { machines, machine, machineId } = await fencedSite(t, files);
  Object.assign(machine.record, { adopted: { branchId: 'branch', pointId: 'point' }, protection: null });
  act = () =>
    Object.defineProperties(machine, {
      presence: { value: { state: 'running', processId: 1 } },
      running: { value: { disks: async () => [] } },
    });
  await assert.rejects(machines.remove(machine), { code: 'MACHINE_STILL_RUNS' });
  assert.ok(machines.get(machineId)?.loop);
  assert.ok(await nodeFiles.sizeOf(machine.layout.record));
});

test('F4 S0.17 with a machine its own alerts go, and those of its replica only where the site has nothing of it any more', async (t) => {
  const replica = { record: {}, points: [] };
  const unread = libFailure('DISK_FULL', 'its files cannot be read');
  for (const [kept, broken] of [
    [undefined, undefined],
    [replica, undefined],
    [undefined, unread],
  ] as const) {
    const site = await fencedSite(t);
    const { machine, machineId, alerts } = site;
    Object.assign(replica.record, { machineId, machineName: 'box' });
    Object.assign(machine.record, { protection: null });
    const acts = actsOf(site, {
      get: () => kept,
      list: () => (kept ? [kept] : []),
      broken: broken ? [{ machineId, error: broken }] : [],
    });
    const others = ['retention', 'replica'].map((about) => `${about}:${machineId}`);
    for (const key of [`turn:${machineId}`, `adopted-claim:${machineId}`, ...others])
      alerts.set(key, 'SOMETHING_IS_WRONG');
    await acts.remove('me', machineId);
    assert.deepEqual([...alerts.keys()], kept || broken ? others : []);
  }
});
