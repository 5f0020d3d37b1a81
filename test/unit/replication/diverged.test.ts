import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { checkGivenUp } from '../../../src/replication/image-locks.ts';
import {
  loadDiverged,
  type MachinePresence,
  type ReplicationTarget,
} from '../../../src/replication/index.ts';
import { dyingFiles, type SeedMachine, seedSites } from '../../support/seed-sites.ts';

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

test('S0.17 the layers of a branch are not given up for what the owner’s files hold, unless a fenced machine becomes that on somebody’s word', async (t) => {
  const { box, found, there, target } = await sites(t);
  await copied(box, target);
  await box.write(0);
  const written = await box.content();
  await box.machine.right.hear({ epoch: 2, siteId: there });
  const refused = { code: 'PROTECTION_DIVERGED' };
  await assert.rejects(box.machine.unprotectKeepingOrigin(), refused);
  await box.machine.right.setApart();
  await assert.rejects(box.machine.unprotectKeepingOrigin(), refused);
  await assert.rejects(box.machine.unprotectKeepingOrigin({ overrules: true }), refused, 'it is not fenced');
  assert.deepEqual((await found())!.disks[0]!.chain, box.machine.chain('system'));
  assert.ok((await box.content()).equals(written));
});

test('S0.17 a site that is killed while such layers are given up shows no branch of what is left, at whatever step', async (t) => {
  for (let left = 0; ; left++) {
    const { box, found, there, target } = await sites(t);
    await copied(box, target);
    await box.write(0);
    await box.machine.right.hear({ epoch: 2, siteId: there });
    const before = (await found())!.disks.map(({ chain }) => chain);
    const wholeOrNone = async () => {
      const branch = await found();
      if (!branch) return;
      const now = branch.disks.map(({ chain }) => chain);
      assert.deepEqual(now, before, `killed before change ${left}`);
    };
    const { files, hasDied } = dyingFiles(left);
    const word = { overrules: true };
    const ended = box.reopen(files).then((dying) => dying.unprotectKeepingOrigin(word));
    await ended.catch((error) => assert.ok(hasDied(), error));
    await wholeOrNone();
    const machine = await box.reopen();
    await machine.attach();
    await wholeOrNone();
    await machine.unprotectKeepingOrigin(word);
    assert.equal(machine.right.tenure.state, 'holds');
    assert.equal(await found(), undefined);
    if (!hasDied()) return;
  }
});

test('S0.17 where what a branch lies upon has been written its layers may be set aside, and by no word where it follows another site', () => {
  const claim = { epoch: 2, siteId: 'there' };
  const lost = { epoch: 1, siteId: 'here' };
  const diverged = { branchId: 'b', name: 'diverged-1', lost, fencedAtMs: 1 };
  const asked = (state: 'follows' | 'fenced', overrules: boolean, presence: MachinePresence) => () =>
    checkGivenUp(
      { name: 'box', diverged, tenure: { state, claim, lost } },
      { mayBeWritten: false, overrules, presence },
    );
  const [stopped, stale] = [
    { state: 'stopped' },
    { state: 'stale', reason: 'it ran on its own files' },
  ] as const;
  for (const overrules of [false, true]) {
    assert.throws(asked('follows', overrules, stopped), { code: 'PROTECTION_DIVERGED' });
    asked('follows', overrules, stale)();
  }
  assert.throws(asked('fenced', false, stopped), { code: 'PROTECTION_DIVERGED' });
  asked('fenced', true, stopped)();
});
