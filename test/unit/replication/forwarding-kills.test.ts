/** Points on their way from the second site to the third, one of which is killed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Forwarding } from '../../../src/replication/index.ts';
import { copy } from '../../support/seed-acts.ts';
import { dyingFiles, readChain, seedSites } from '../../support/seed-sites.ts';
import { sized } from '../../support/size.ts';
import type { CleanUp } from '../../support/temporary.ts';

/** One of the two is killed at one step in so many. */
const STRIDE = sized({ what: 'S0.29: steps between kills while points are forwarded', normal: 11, full: 1 });
const POLICY = { retention: { types: { crash: 100, app: 100 } }, compression: true };

async function threeSites(t: CleanUp) {
  const sites = await seedSites(t);
  const box = await sites.addMachine({ seed: false });
  await copy(sites, box);
  const { machineId } = box.machine.record;
  const far = await sites.anotherSite();
  const near = sites.replicas.need(machineId);
  await Forwarding.begin(sites.forwardTools(), near, { siteId: far.target.siteId, ...POLICY });
  /** The second site as a process that has just started forwards all that there is, and the third has it. */
  const forwardAll = async () => {
    const [forwarding] = await Forwarding.openAll(sites.forwardTools(), near);
    const target = far.targetOn(await far.reopen());
    while ((await forwarding!.forward(target, sites.origin)).kind !== 'nothing');
    const there = (await far.reopen()).need(machineId);
    assert.equal(there.newest!.statementDigest, near.newest!.statementDigest);
    const { pointId } = there.newest!.statement;
    assert.ok((await readChain(there.chain(pointId, 'system'))).equals(await box.content()));
    assert.equal(forwarding!.heldPointId, undefined);
  };
  /** One more point at the second site. */
  const change = async (round: number) => {
    await box.write((round * 5 * 65_536) % (2 * 1024 * 1024));
    await copy(sites, box);
  };
  return { sites, near, far, machineId, forwardAll, change };
}

test('S0.29 the site in the middle is killed at any step: the next process goes on, and everything arrives', async (t) => {
  const { sites, near, far, forwardAll, change } = await threeSites(t);
  let kills = 0;
  for (let step = 0; ; step += STRIDE) {
    await change(step);
    const { files, hasDied } = dyingFiles(step);
    try {
      const [forwarding] = await Forwarding.openAll(sites.forwardTools(files), near);
      const target = far.targetOn(await far.reopen());
      while ((await forwarding!.forward(target, sites.origin)).kind !== 'nothing');
    } catch {
      // Whatever a dead process says; the directory is what counts.
    }
    await forwardAll();
    if (!hasDied()) break;
    kills += 1;
  }
  t.diagnostic(`${kills} kills`);
  assert.ok(kills > 2, `${kills} kills`);
});

test('S0.29 the third site is killed at any step: it has a point whole or not at all, and gets it', async (t) => {
  const { sites, near, far, machineId, forwardAll, change } = await threeSites(t);
  await forwardAll();
  let kills = 0;
  for (let step = 0; ; step += STRIDE) {
    await change(step);
    const { files, hasDied } = dyingFiles(step);
    const [forwarding] = await Forwarding.openAll(sites.forwardTools(), near);
    try {
      const target = far.targetOn(await far.reopen(files));
      while ((await forwarding!.forward(target, sites.origin)).kind !== 'nothing');
    } catch {
      // Whatever a dead process says; the directory is what counts.
    }
    const there = (await far.reopen()).need(machineId);
    const known = near.points.find(
      ({ statementDigest }) => statementDigest === there.newest!.statementDigest,
    );
    assert.ok(known, 'what is listed there is a point of the second site');
    const { pointId } = known.statement;
    const [found, expected] = await Promise.all(
      [there, near].map((replica) => readChain(replica.chain(pointId, 'system'))),
    );
    assert.ok(found!.equals(expected!), 'and whole');
    await forwardAll();
    if (!hasDied()) break;
    kills += 1;
  }
  t.diagnostic(`${kills} kills`);
  assert.ok(kills > 2, `${kills} kills`);
});
