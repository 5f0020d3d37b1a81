import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { loadDiverged, type ReplicationTarget } from '../../../src/replication/index.ts';
import { type SeedMachine, seedSites } from '../../support/seed-sites.ts';

async function sites(t: Parameters<typeof seedSites>[0]) {
  const { addMachine, target, origin } = await seedSites(t);
  const box = await addMachine({ seed: false });
  const found = () => loadDiverged(nodeFiles, box.machine.layout, origin.siteId);
  return { box, found, target, there: target.siteId, own: origin.siteId };
}

async function copied({ machine }: SeedMachine, target: ReplicationTarget): Promise<void> {
  await machine.cut('crash');
  await machine.replicate(target);
}

test('S0.17 a machine that is fenced is a branch with a name from that moment on, also for the next process, until it is the machine again', async (t) => {
  const { box, found, there, own } = await sites(t);
  assert.equal(await found(), undefined);
  const { right } = box.machine;
  await right.hear({ epoch: 2, siteId: there });
  const { branch } = (await found())!;
  assert.deepEqual([branch.name, branch.lost], ['diverged-1', { epoch: 1, siteId: own }]);
  const machine = await box.reopen();
  await machine.right.hear({ epoch: 3, siteId: there });
  await machine.right.setApart();
  assert.equal(machine.right.tenure.state, 'follows');
  assert.deepEqual((await found())!.branch, branch, 'a further claim makes no other branch of it');
  await machine.right.seizeBack();
  assert.equal(await found(), undefined, 'its disks are the machine again');
  assert.equal(machine.record.diverged, undefined);
  await machine.right.hear({ epoch: 5, siteId: there });
  const second = (await found())!.branch;
  assert.deepEqual([second.name, second.lost.epoch], ['diverged-4', 4]);
  assert.notEqual(second.branchId, branch.branchId);
  await machine.unprotect({ overrules: true });
  assert.equal(await found(), undefined, 'so does who ends the protection of what is fenced');
});

test('S0.17 what was handed over is no branch: the other site has all of it', async (t) => {
  const { box, found, there, target } = await sites(t);
  await copied(box, target);
  const { offer } = await box.machine.right.cede(there);
  await box.machine.right.hear(offer);
  assert.equal(box.machine.right.tenure.state, 'follows');
  assert.equal(await found(), undefined);
});

test('S0.17 a branch begins at the newest point that the claiming site has, and holds the layers above it alone', async (t) => {
  const { box, found, there, target } = await sites(t);
  await copied(box, target);
  await box.write(0);
  await copied(box, target);
  const acknowledged = box.machine.target!.acknowledged!;
  await box.write(4096);
  await box.machine.cut('crash');
  await box.write(8192);
  await box.machine.right.hear({ epoch: 2, siteId: there });
  const { branch, disks } = (await found())!;
  const { pointId, sequence, cutAtMs } = acknowledged;
  assert.deepEqual(
    [branch.from!.siteId, branch.from!.pointId, branch.from!.sequence, branch.from!.cutAtMs],
    [there, pointId, sequence, cutAtMs],
  );
  const [disk] = disks;
  assert.deepEqual(disk!.chain, box.machine.chain(disk!.diskId));
  assert.equal(disk!.own.length, 2, 'the sealed layer that was not sent, and the tip');
  assert.deepEqual(disk!.own, disk!.chain.slice(-2));
});

test('S0.17 of a machine of which no copy has arrived all is the branch', async (t) => {
  const { box, found, there } = await sites(t);
  await box.machine.cut('crash');
  await box.machine.right.hear({ epoch: 2, siteId: there });
  const { branch, disks } = (await found())!;
  assert.equal(branch.from, undefined);
  assert.deepEqual(disks[0]!.own, disks[0]!.chain);
});
