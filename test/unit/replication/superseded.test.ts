import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Failure } from '../../../src/lib/errors.ts';
import type { Claim } from '../../../src/recovery-point/index.ts';
import type { ProtectedMachine, ReplicationTarget, RightAnswer } from '../../../src/replication/index.ts';
import { seedSites } from '../../support/seed-sites.ts';

/** A site that answers to a claim as is said, and what it has heard. */
function otherSite(siteId: string, answer: (claim: Claim) => RightAnswer) {
  const heard: Claim[] = [];
  const rights = {
    claim: async (_machineId: string, claim: Claim) => {
      heard.push(claim);
      return answer(claim);
    },
  };
  return { heard, target: { siteId, rights } as unknown as ReplicationTarget };
}

const givesWay = (claim: Claim): RightAnswer => ({ claim, state: 'fenced' });

async function versionOf({ layout }: ProtectedMachine): Promise<number> {
  return JSON.parse(await readFile(layout.record, 'utf8')).version;
}

async function fenced(t: Parameters<typeof seedSites>[0]) {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  const { siteId } = sites.target;
  await box.machine.right.hear({ epoch: 2, siteId });
  return { box, siteId, own: sites.origin.siteId };
}

test('S0.17 whoever takes a fenced machine back remembers, durably, over whom, until that site has answered', async (t) => {
  const { box, siteId, own } = await fenced(t);
  await box.machine.unprotect({ overrules: true });
  assert.deepEqual(box.machine.right.tenure, { state: 'holds', claim: { epoch: 3, siteId: own } });
  assert.deepEqual([box.machine.right.untold, await versionOf(box.machine)], [[siteId], 11]);

  const machine = await box.reopen();
  assert.deepEqual(machine.right.untold, [siteId]);
  const deaf = otherSite(siteId, () => ({ claim: { epoch: 2, siteId }, state: 'holds' }));
  assert.equal(await machine.right.tellSuperseded(deaf.target), false, 'it has not understood');
  const site = otherSite(siteId, givesWay);
  assert.equal(await machine.right.tellSuperseded(site.target), true);
  assert.deepEqual(site.heard, [{ epoch: 3, siteId: own }]);
  assert.deepEqual([machine.right.untold, (await versionOf(machine)) < 11], [[], true]);
  // It may be claimed there again, by its people, and says so then.
  assert.deepEqual(machine.record.superseded, [{ siteId, told: true }]);
  assert.equal(await machine.right.tellSuperseded(site.target), true);
  assert.equal(site.heard.length, 1, 'told once');
});

test('S0.17 a site that answers with a higher claim is given way to', async (t) => {
  const { box, siteId } = await fenced(t);
  await box.machine.unprotect({ overrules: true });
  const claim = { epoch: 4, siteId };
  const higher = otherSite(siteId, () => ({ claim, state: 'holds' }));
  assert.equal(await box.machine.right.tellSuperseded(higher.target), true);
  assert.deepEqual([box.machine.right.tenure.state, box.machine.right.tenure.claim], ['fenced', claim]);
  await box.machine.unprotect({ overrules: true });
  assert.deepEqual([box.machine.right.tenure.claim.epoch, box.machine.right.untold], [5, [siteId]]);
});

test('S0.17 one that has nothing of the machine any more runs nothing of it; one that cannot say so is asked again', async (t) => {
  const { box, siteId } = await fenced(t);
  await box.machine.unprotect({ overrules: true });
  const failing = (code: string) =>
    otherSite(siteId, () => {
      throw new Failure(code, { kind: 'missing', retry: 'never', remedy: '' }, code);
    });
  const { right } = box.machine;
  await assert.rejects(right.tellSuperseded(failing('RECORD_CORRUPT').target), { code: 'RECORD_CORRUPT' });
  assert.deepEqual(right.untold, [siteId]);
  assert.equal(await right.tellSuperseded(failing('REPLICA_UNKNOWN').target), true);
  assert.deepEqual(right.untold, []);
});

test('S0.17 so does whoever takes back what was handed over, or offered, on the word of a person', async (t) => {
  const { box, siteId } = await fenced(t);
  const { machine } = box;
  await machine.right.setApart();
  await machine.unprotect();
  assert.equal(machine.right.tenure.state, 'follows', 'its protection is ended, and nothing else');
  await machine.right.seizeBack();
  assert.deepEqual([machine.right.tenure.claim.epoch, machine.right.untold], [3, [siteId]]);
});

test('F4 the protection of a fenced machine is ended also if it has none: its disks are the machine again', async (t) => {
  const { box, siteId } = await fenced(t);
  const { machine } = box;
  await machine.unprotect({ overrules: true });
  await machine.right.hear({ epoch: 4, siteId });
  assert.deepEqual([machine.record.protection, machine.right.tenure.state], [null, 'fenced']);
  await machine.unprotect();
  assert.equal(machine.right.tenure.state, 'fenced', 'that takes a word');
  await machine.unprotect({ overrules: true });
  assert.deepEqual([machine.right.tenure.state, machine.right.tenure.claim.epoch], ['holds', 5]);
});

test('S0.17 one that is fenced while its protection is being ended stays fenced: nobody has given his word against that claim', async (t) => {
  const sites = await seedSites(t);
  const { machine } = await sites.addMachine({ seed: false });
  const ended = machine.unprotect();
  await machine.right.hear({ epoch: 2, siteId: sites.target.siteId });
  await ended;
  assert.deepEqual([machine.record.protection, machine.right.tenure.state], [null, 'fenced']);
});
