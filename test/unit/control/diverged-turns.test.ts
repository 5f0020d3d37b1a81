import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { AdoptionActs } from '../../../src/control/acts/adoptions.ts';
import { HandoverActs } from '../../../src/control/acts/handover-acts.ts';
import { HomeRights } from '../../../src/control/acts/home-rights.ts';
import { MachineActs } from '../../../src/control/acts/machine-acts.ts';
import { refuseAtHome } from '../../../src/control/machines/machine-identity.ts';
import type { DivergedBranch } from '../../../src/control/replicas/diverged-branch.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { removeBranch } from '../../../src/replica/index.ts';
import type { ProtectedMachine, RightsTarget } from '../../../src/replication/index.ts';
import { adoptedAgain, type FencedSite, fencedSite } from '../../support/fenced-site.ts';

const { signal } = new AbortController();
const isThere = async (path: string) => (await nodeFiles.list(path)) !== undefined;

/** The acts of a person; the other site answers a withdrawal when it is let. */
function actsOf({ machines, diverged, machineId }: FencedSite) {
  const [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const inventory = {
    home: () => machines.get(machineId)!.machine,
    find: () => ({ machineId }),
    view: () => ({}),
  };
  const audit = { acting: (_act: unknown, work: () => Promise<unknown>) => work() };
  const rights: Partial<RightsTarget> = {
    withdraw: async (_machineId, claim) => {
      asked.resolve();
      await answer.promise;
      return { claim, state: 'follows' };
    },
  };
  const tools = { machines, inventory, audit, diverged, groups: { of: () => undefined }, alerts: {} };
  const machineActs = new MachineActs(tools as unknown as ConstructorParameters<typeof MachineActs>[0]);
  const handovers = new HandoverActs({
    ...{ ...tools, target: () => ({ rights }) },
  } as unknown as ConstructorParameters<typeof HandoverActs>[0]);
  return {
    ...{ asked: asked.promise, answer: answer.resolve },
    withdraw: () => handovers.withdraw('me', 'box', {}),
    unprotect: () => machineActs.unprotect('me', 'box', { confirmOtherSideDown: true }),
  };
}

test('S0.17 while the other site is asked to give a machine back what it wrote here is not removed, and once it is the machine again it stays', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machineId } = site;
  await machine.right.setApart();
  const { branchId } = await site.branch();
  const { withdraw, asked, answer } = actsOf(site);
  const withdrawn = withdraw();
  await asked;
  const removed = diverged.remove(machineId, branchId, signal);
  await assert.rejects(
    diverged.reading(machineId, branchId, async () => assert.fail('nothing is read')),
    { code: 'MACHINE_CHANGING' },
  );
  answer();
  await withdrawn;
  assert.equal(machine.right.tenure.state, 'holds');
  assert.equal(await removed, false);
  assert.ok(await isThere(machine.layout.directory));
  assert.equal(site.machines.get(machineId)!.machine, machine);
});

test('S0.17 a machine that this site has heard to hold meanwhile is not discarded', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machineId, ownSiteId, generations } = site;
  const { branchId } = await site.branch();
  const { needsOf } = generations;
  generations.needsOf = async (...asked) => {
    const needs = await needsOf.apply(generations, asked);
    await machine.right.hear({ epoch: 3, siteId: ownSiteId });
    return needs;
  };
  await assert.rejects(diverged.remove(machineId, branchId, signal), { code: 'BRANCH_UNKNOWN' });
  assert.ok(await isThere(machine.layout.directory));
  assert.equal(await isThere(`${machine.layout.directory}.removed`), false);
});

test('S0.17 while a test of what diverged is being made nothing takes its disks: neither before its record is there nor after', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machineId } = site;
  const { branchId } = await site.branch();
  const { withdraw, unprotect } = actsOf(site);
  const needed = { code: 'BRANCH_NEEDED' };
  const refused = async () => {
    await assert.rejects(unprotect(), needed);
    await assert.rejects(withdraw(), needed);
    await assert.rejects(diverged.remove(machineId, branchId, signal), needed);
  };
  const made = await diverged.reading(machineId, branchId, async (branch) => {
    await refused();
    return site.makeTest(branch);
  });
  await refused();
  assert.deepEqual(
    (await site.branch()).branches.map((one) => one.branchId),
    [made],
  );
  await removeBranch(nodeFiles, await site.branch(), made);
  await unprotect();
  assert.equal(machine.right.tenure.state, 'holds');
  await assert.rejects(
    diverged.reading(machineId, branchId, async () => undefined),
    { code: 'BRANCH_UNKNOWN' },
  );
});

test('S0.17 acts with one machine come one after the other, and what the first has left nothing of is not changed by the second', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machineId, generations } = site;
  const { branchId } = await site.branch();
  const begun = Promise.withResolvers<void>();
  const { needsOf } = generations;
  generations.needsOf = (...asked) => {
    begun.resolve();
    return needsOf.apply(generations, asked);
  };
  const removed = diverged.remove(machineId, branchId, signal);
  await begun.promise;
  const second = diverged.alone(machine, async () => assert.fail('there is nothing left'));
  await assert.rejects(second, { code: 'MACHINE_CHANGING' });
  assert.equal(await removed, true);
  assert.equal(await isThere(machine.layout.directory), false);
});

test('S0.17 a removal of what diverged that is cancelled leaves all of it', async (t) => {
  const site = await fencedSite(t);
  const { branchId } = await site.branch();
  const controller = new AbortController();
  const { generations, diverged, machineId, machine } = site;
  const { former } = generations;
  generations.former = async (id) => {
    if (id !== undefined) controller.abort();
    return former.call(generations, id);
  };
  await assert.rejects(diverged.remove(machineId, branchId, controller.signal));
  assert.ok(await isThere(machine.layout.directory));
  assert.equal((await site.branch()).branchId, branchId);
});

test('S0.17 what diverged is not put into its branch while it is being read; its tests are ended for that', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machines, machineId, claimSiteId } = site;
  const { branchId } = await site.branch();
  const adopted = { branchId: 'the branch that it was', pointId: 'known' };
  Object.assign(machine.record, { adopted });
  const replica = {
    record: { machineId, sourceSiteId: claimSiteId, adopted: adopted.branchId },
    points: [{ statement: { pointId: 'known' } }],
    ...{ update: async () => undefined, disown: async () => undefined },
  };
  const alerts = new Map<string, string>();
  const home = new HomeRights({
    ...{ siteId: site.ownSiteId, machines, diverged, files: nodeFiles, log: silentLog },
    replicas: { get: () => replica, broken: [] },
    failovers: {
      cleanup: async (trunk: DivergedBranch, testId: string) => removeBranch(nodeFiles, trunk, testId),
    },
    alerts: {
      raise: (key: string, _severity: string, { code }: { code: string }) => void alerts.set(key, code),
      clear: (key: string) => void alerts.delete(key),
    },
    ...{ audit: { note: () => undefined }, onTurnedBack: () => undefined },
  } as unknown as ConstructorParameters<typeof HomeRights>[0]);
  const turnBack = async () => {
    const arrival = { machineId, epoch: 2, parent: { pointId: 'known' }, sourceSiteId: claimSiteId };
    await assert.rejects(home.admit(arrival), { code: 'REPLICATION_NOT_ENDED' });
    await home.close();
  };
  await diverged.reading(machineId, branchId, async (branch) => {
    await turnBack();
    assert.equal(alerts.get(`turn:${machineId}`), 'BRANCH_NEEDED');
    assert.ok(await isThere(machine.layout.directory));
    await site.makeTest(branch);
  });
  await turnBack();
  assert.deepEqual([...alerts], []);
  assert.equal(await isThere(machine.layout.directory), false);
  alerts.set(`turn:${machineId}`, 'MACHINE_CHANGING');
  const arrival = { machineId, epoch: 2, parent: { pointId: 'known' }, sourceSiteId: claimSiteId };
  assert.equal(await home.admit(arrival as unknown as Parameters<typeof home.admit>[0]), undefined);
  assert.deepEqual([...alerts], [], 'an alert of it ends with what is there no more');
});

test('S0.17 what a person has set aside beside a branch is not removed with it', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machineId } = site;
  const { branchId } = await site.branch();
  const aside = machine.layout.setAside('01hzzzzzzzzzzzzzzzzzzzzzzz');
  await nodeFiles.makeDirectory(aside);
  await assert.rejects(diverged.remove(machineId, branchId, signal), { code: 'MACHINE_LAYERS_KEPT' });
  assert.ok(await isThere(aside));
  await nodeFiles.removeDirectory(aside);
  assert.equal(await diverged.remove(machineId, branchId, signal), true);
});

test('F4 S0.17 what was at home here before hinders an adoption until it has ended, and not where its own files are gone', async (t) => {
  const site = await fencedSite(t);
  const { machine, machines } = site;
  const [{ chain }] = machine.record.disks as [ProtectedMachine['record']['disks'][number]];
  await rm(chain.at(-1)!.path);
  assert.equal((await machine.attach()).state, 'stale');
  const adopted = await adoptedAgain(site);
  assert.equal(machines.get(adopted.record.machineId)!.machine, adopted);
  const presence = { state: 'unreachable', reason: 'its disks are in use' } as const;
  assert.throws(() => refuseAtHome({ record: machine.record, running: undefined, presence }), {
    code: 'MACHINE_EXISTS',
    message: /has not ended .*: its disks are in use/,
    hint: /vm stop/,
  });
  const unseen = { state: 'stopped', isUnseen: true } as const;
  assert.throws(() => refuseAtHome({ record: machine.record, running: undefined, presence: unseen }), {
    code: 'MACHINE_EXISTS',
    message: /has not ended .* not looked yet/,
  });
});

/** The acts of adoption at a site, where a branch is adopted like that. */
function adoptionActs(
  { diverged, machineId, machines, ownSiteId }: FencedSite,
  adopt: () => Promise<unknown>,
) {
  return new AdoptionActs({
    ...{ identity: { siteId: ownSiteId }, machines, diverged, log: silentLog, clock: systemClock },
    random: systemRandom,
    failovers: { adopt },
    inventory: {
      replica: () => ({ record: { machineId }, branches: [{ branchId: 'b' }] }),
      ...{ find: () => ({ machineId }), view: () => ({}) },
    },
    audit: { acting: (_act: unknown, work: () => Promise<unknown>) => work() },
    ...{ reports: { ofAdoptions: async () => undefined }, fences: { look: () => undefined } },
    alerts: { raise: () => undefined, clear: () => undefined },
  } as unknown as ConstructorParameters<typeof AdoptionActs>[0]);
}

test('F4 S0.17 a site that has just been started looks whether what was at home here before runs when it is to adopt what it became', async (t) => {
  const site = await fencedSite(t);
  const { machine } = site;
  let hasLooked = false;
  Object.defineProperties(machine, {
    presence: { get: () => ({ state: 'stopped', ...(hasLooked ? {} : { isUnseen: true }) }) },
    attach: {
      value: async () => {
        hasLooked = true;
        throw libFailure('DISK_FULL', 'what was broken off cannot be ended');
      },
    },
  });
  await adoptionActs(site, async () => refuseAtHome(machine)).adopt('me', 'box', { branch: 'b' });
  assert.ok(hasLooked);
});

test('S0.17 a machine that is adopted while what it was here before is being removed is looked after, with one object for its directory', async (t) => {
  const site = await fencedSite(t);
  const { diverged, machine, machineId, machines, generations } = site;
  const { branchId } = await site.branch();
  let adopted: ProtectedMachine | undefined;
  const acts = adoptionActs(site, async () => {
    adopted = await adoptedAgain(site);
  });
  const { needsOf } = generations;
  let adopting: Promise<unknown> | undefined;
  generations.needsOf = async (...asked) => {
    adopting ??= acts.adopt('me', 'box', { branch: 'b' });
    await Promise.race([adopting, sleep(systemClock, 100)]);
    return needsOf.apply(generations, asked);
  };
  assert.equal(await diverged.remove(machineId, branchId, signal), true);
  await adopting;
  assert.ok(adopted);
  assert.equal(machines.get(machineId)!.machine, adopted);
  assert.ok(machines.get(machineId)!.loop);
  assert.equal(await isThere(machine.layout.directory), false);
});

test('S0.17 what the site has of a machine no more cannot be discarded, removed or changed in the name of what it has instead', async (t) => {
  const site = await fencedSite(t);
  const { machine, machineId, machines } = site;
  const adopted = await adoptedAgain(site);
  const { loop } = machines.get(machineId)!;
  const changing = { code: 'MACHINE_CHANGING' };
  await assert.rejects(
    machines.discard(machine, () => assert.fail('it is not asked for')),
    changing,
  );
  await assert.rejects(machines.unprotect(machine, { overrules: true }), changing);
  Object.assign(machine.record, { protection: null });
  await assert.rejects(machines.remove(machine), changing);
  assert.equal(machines.get(machineId)!.machine, adopted);
  assert.equal(machines.get(machineId)!.loop, loop);
  assert.ok(await isThere(machine.layout.directory));
});

test('S0.17 what a person has set aside is not removed with its machine, which goes when that has been moved away', async (t) => {
  const { machine, machineId, machines } = await fencedSite(t);
  Object.assign(machine.record, { protection: null });
  const aside = machine.layout.setAside('01hzzzzzzzzzzzzzzzzzzzzzzz');
  await nodeFiles.makeDirectory(aside);
  await assert.rejects(machines.remove(machine), { code: 'MACHINE_LAYERS_KEPT' });
  assert.ok(await isThere(aside));
  assert.ok(machines.get(machineId)!.loop, 'it is looked after as before');
  await nodeFiles.rename(aside, join(dirname(dirname(machine.layout.directory)), 'kept'));
  await machines.remove(machine);
  assert.equal(await isThere(machine.layout.directory), false);
});

test('S0.17 a branch is read by the files that it has when the machine has been looked at, which ends what was left half done', async (t) => {
  let isFull = false;
  const files: FileSystem = {
    ...nodeFiles,
    removeDirectory: async (path) => {
      if (isFull) throw libFailure('DISK_FULL', `cannot remove ${path}`);
      await nodeFiles.removeDirectory(path);
    },
  };
  const site = await fencedSite(t, files);
  const { diverged, machine, machines, machineId } = site;
  const { branchId } = await site.branch();
  isFull = true;
  await assert.rejects(machines.unprotect(machine), { code: 'DISK_FULL' });
  const { need } = diverged;
  let needed = 0;
  diverged.need = async (...asked) => {
    const found = await need.apply(diverged, asked);
    needed += 1;
    if (needed === 2) isFull = false;
    return found;
  };
  await diverged.reading(machineId, branchId, async (branch) => {
    assert.equal(machine.record.dissolving, undefined);
    const { disks } = machine.record;
    assert.deepEqual(
      disks.map(({ diskId }) => branch.chain(branchId, diskId)),
      disks.map(({ chain }) => chain),
    );
  });
});
