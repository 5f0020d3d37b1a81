/** Branches that diverged are found by the records of machines; one that cannot be read costs nothing but what it holds. */
import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { DivergedBranches } from '../../../src/control/replicas/diverged-branches.ts';
import { Generations } from '../../../src/control/replicas/generations.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { createBranch, type Trunk } from '../../../src/replica/index.ts';
import { ProtectedLayout } from '../../../src/replication/index.ts';
import { FakeImages, ImageLocks } from '../../support/fake-images.ts';
import { seedSites } from '../../support/seed-sites.ts';
import type { CleanUp } from '../../support/temporary.ts';

/** Two fenced machines: one is a machine of this site still, the other has come home, and was fenced in an older generation. */
async function fencedSite(t: CleanUp) {
  const sites = await seedSites(t);
  const present = (await sites.addMachine({ seed: false })).machine;
  const former = (await sites.addMachine({ seed: false })).machine;
  for (const { right } of [present, former]) await right.hear({ epoch: 2, siteId: sites.target.siteId });
  const dataDirectory = join(sites.directory, 'p');
  const { machineId } = former.record;
  const home = [present, { layout: new ProtectedLayout(dataDirectory, machineId, 3) }];
  const machines = {
    list: () => home.map((machine) => ({ machine })),
    get: (id: string) => ({ machine: home[id === machineId ? 1 : 0] }),
    ...{ broken: [], discard: assert.fail },
  } as unknown as ConstructorParameters<typeof Generations>[0]['machines'] &
    Parameters<typeof DivergedBranches.open>[0]['machines'];
  const replicas = { get: () => undefined, broken: [] };
  const files = { files: nodeFiles, dataDirectory };
  const images = new FakeImages({ files: nodeFiles, locks: new ImageLocks() });
  const alerts = new Map<string, Failure>();
  const recovered: Trunk[] = [];
  const open = () =>
    DivergedBranches.open({
      ...{ ...files, images, machines, replicas, siteId: sites.origin.siteId },
      groups: { of: () => undefined },
      generations: new Generations({ ...files, machines, replicas, olderCopies: { list: () => [] } }),
      failovers: { recover: async (branches) => void recovered.push(...branches) },
      alerts: {
        raise: (key, _severity, failure) => void alerts.set(key, failure),
        clear: (key) => void alerts.delete(key),
        clearMachine: assert.fail,
      },
      triggerTokens: { remove: async () => assert.fail('nothing is removed') },
    });
  return { present, former, open, alerts, recovered };
}

/** Its record cannot be read; resolves with what mends that. */
async function damage({ layout }: { readonly layout: ProtectedLayout }): Promise<() => Promise<void>> {
  const kept = `${layout.record}.kept`;
  await copyFile(layout.record, kept);
  await writeFile(layout.record, 'a bad sector');
  return () => copyFile(kept, layout.record);
}

const idsOf = async (branches: DivergedBranches, machineId?: string) =>
  (await branches.list(machineId)).map(({ record }) => record.machineId);

test('S0.17 a record of an older generation that cannot be read hinders no other machine and no start, is an alert, and counts again when it can be', async (t) => {
  const { present, former, open, alerts, recovered } = await fencedSite(t);
  const [here, there] = [present.record.machineId, former.record.machineId];
  const [before] = await (await open()).list(there);
  await before!.measure();
  const branchId = newId(systemClock, systemRandom);
  const { branchId: pointId } = before!;
  await createBranch(nodeFiles, before!, { branchId, pointId, purpose: 'test', createdAtMs: 0 });

  const mend = await damage(former);
  const branches = await open();
  assert.deepEqual(await idsOf(branches), [here]);
  assert.deepEqual([...alerts.keys()], [`diverged:${there}`]);
  const unreadable = { code: 'RECORD_CORRUPT', message: /machine record/ };
  assert.throws(() => branches.checkRead(there), unreadable);
  await assert.rejects(branches.need(there, 'diverged-1'), unreadable);
  await assert.rejects(branches.checkNothingUpon(there, former.layout.directory), unreadable);
  // What the machine is now lies elsewhere.
  await branches.checkNothingUpon(there);
  await branches.checkNothingUpon(here);
  assert.equal((await branches.need(here, 'diverged-1')).record.machineId, here);

  await mend();
  recovered.length = 0;
  assert.equal((await branches.list()).length, 2);
  assert.deepEqual([...alerts.keys()], []);
  assert.deepEqual(
    recovered.flatMap((trunk) => trunk.branches.map((one) => one.branchId)),
    [branchId],
    'tests that were left upon it are found as by a site that starts',
  );
  await assert.rejects(branches.checkNothingUpon(there, former.layout.directory), { code: 'BRANCH_NEEDED' });
});

test('S0.17 who asks for the branches of one machine reads nothing of the others', async (t) => {
  const { present, former, open, alerts } = await fencedSite(t);
  const [here, there] = [present.record.machineId, former.record.machineId];
  const branches = await open();
  await damage(former);
  assert.deepEqual(await idsOf(branches, here), [here]);
  assert.deepEqual([...alerts.keys()], []);
  assert.deepEqual(await idsOf(branches, there), []);
  assert.deepEqual([...alerts.keys()], [`diverged:${there}`]);
});

test('S0.17 a branch whose record cannot be read for a while is still read by those who read it before', async (t) => {
  const { present, open } = await fencedSite(t);
  const { machineId } = present.record;
  const branches = await open();
  await branches.reading(machineId, 'diverged-1', async () => {
    const mend = await damage(present);
    assert.deepEqual(await idsOf(branches, machineId), []);
    await mend();
    await assert.rejects(branches.checkNothingUpon(machineId), { code: 'BRANCH_NEEDED' });
  });
  await branches.checkNothingUpon(machineId);
});
