import assert from 'node:assert/strict';
import { basename, dirname } from 'node:path';
import { test } from 'node:test';
import { type FileSystem, fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { Claim } from '../../../src/recovery-point/index.ts';
import { withTenure } from '../../../src/replica/index.ts';
import type { Cession, RightAnswer } from '../../../src/replication/index.ts';
import { copy } from '../../support/seed-acts.ts';
import { DISK_BYTES, seedSitesOn } from '../../support/seed-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

type Fault = 'rename' | 'sync' | 'read' | undefined;

/** A disk on which a record of this name is not renamed to its place, or is and does not become durable, or cannot be read either then. */
function faultyFiles(recordName: string): FileSystem & { fault: Fault } {
  const failed = (path: string) =>
    fileFailure('sync', path, Object.assign(new Error('EIO'), { code: 'EIO' }));
  let renamedIn: string | undefined;
  const faulty: FileSystem & { fault: Fault } = Object.assign(Object.create(nodeFiles) as FileSystem, {
    fault: undefined,
    rename: async (from: string, to: string) => {
      if (faulty.fault && basename(to) === recordName) {
        if (faulty.fault === 'rename') throw failed(to);
        renamedIn = dirname(to);
      }
      await nodeFiles.rename(from, to);
    },
    syncDirectory: async (path: string) => {
      if (faulty.fault && path === renamedIn) throw failed(path);
      await nodeFiles.syncDirectory(path);
    },
    open: async (path: string, how: 'create' | 'update' | 'read') => {
      if (faulty.fault === 'read' && how === 'read' && basename(path) === recordName) throw failed(path);
      return nodeFiles.open(path, how);
    },
  });
  return faulty;
}

/** A machine whose last state the other site has, on a disk that may be faulty; what that site is offered, and answers to it. */
async function copied(t: CleanUp) {
  const files = faultyFiles('machine.json');
  const directory = await temporaryDirectory(t);
  const sites = await seedSitesOn({ directory, protectedFiles: files, recoveryFiles: nodeFiles });
  const box = await sites.addMachine({ seed: false });
  await copy(sites, box);
  const offered: Cession[] = [];
  const rights = {
    claim: () => assert.fail('nothing is claimed'),
    withdraw: () => assert.fail('nothing is withdrawn'),
    offer: async (_machineId: string, cession: Cession): Promise<RightAnswer> => {
      offered.push(cession);
      return { claim: cession.claim, state: 'follows' };
    },
  };
  Object.assign(sites.target, { rights });
  return { files, sites, box, offered, siteId: sites.target.siteId };
}

const OF_RECORD = { code: 'FSYNC_FAILED' };

for (const fault of ['sync', 'read'] as const) {
  test(`S0.17 a machine whose offer could not be made durable (${fault}) does not run, and is offered to nobody before it is`, async (t) => {
    const { files, sites, box, offered, siteId } = await copied(t);
    files.fault = fault;
    const told: string[] = [];
    box.machine.onEvent(({ name }) => void told.push(name));
    await assert.rejects(box.machine.right.cede(siteId), OF_RECORD);
    assert.deepEqual([box.machine.right.tenure.state, told], ['cedes', ['WARMSITE_TENURE']]);
    await assert.rejects(box.machine.start(), { code: 'PROTECTION_CEDED' });
    await assert.rejects(box.machine.replicate(sites.target), OF_RECORD);
    assert.deepEqual(offered, [], 'not a word of it has left the site');

    files.fault = undefined;
    assert.equal((await box.machine.replicate(sites.target)).kind, 'nothing');
    assert.deepEqual(
      offered.map(({ offer }) => offer),
      [{ epoch: 2, siteId }],
    );
    assert.equal((await box.reopen(nodeFiles)).right.tenure.state, 'cedes', 'as the next process sees it');
  });
}

test('S0.17 an offer that is certain not to be stored is none', async (t) => {
  const { files, sites, box, offered, siteId } = await copied(t);
  files.fault = 'rename';
  await assert.rejects(box.machine.right.cede(siteId), OF_RECORD);
  assert.equal(box.machine.right.tenure.state, 'holds');
  await box.machine.right.settle();
  assert.equal((await box.machine.replicate(sites.target)).kind, 'nothing', 'it goes on as before');
  assert.deepEqual(offered, []);
  assert.equal((await box.reopen(nodeFiles)).right.tenure.state, 'holds');
});

test('S0.17 a claim that was heard and could not be stored is not answered before it is, and counts', async (t) => {
  const { files, box, siteId } = await copied(t);
  const claim: Claim = { epoch: 2, siteId };
  files.fault = 'sync';
  await assert.rejects(box.machine.right.hear(claim), OF_RECORD);
  assert.equal(box.machine.right.tenure.state, 'fenced');
  await assert.rejects(box.machine.right.hear(claim), OF_RECORD, 'told again');
  await assert.rejects(box.machine.right.settle(), OF_RECORD);
  files.fault = undefined;
  assert.deepEqual((await box.machine.right.hear(claim)).claim, claim);
});

test('S0.17 nor does a machine run by a right that was taken back and could not be stored', async (t) => {
  const { files, box, siteId } = await copied(t);
  await box.machine.right.cede(siteId);
  files.fault = 'sync';
  await assert.rejects(box.machine.right.seizeBack(), OF_RECORD);
  await assert.rejects(box.machine.start(), OF_RECORD);
  assert.deepEqual(box.machine.right.tenure.claim.epoch, 3);
});

test('S0.17 the offer of another process is repeated only if the machine has stood still since', async (t) => {
  const { sites, box, offered, siteId } = await copied(t);
  await box.machine.right.cede(siteId);
  const machine = await box.reopen(nodeFiles);
  await machine.replicate(sites.target);
  await machine.replicate(sites.target);
  assert.equal(offered.length, 2);

  // Somebody starts it in spite of all, and its guest writes.
  await box.write(DISK_BYTES / 2 + 4096);
  const again = await box.reopen(nodeFiles);
  await assert.rejects(again.replicate(sites.target), {
    code: 'PROTECTION_NOT_STILL',
    message: /not all that box has written is copied/,
    hint: /withdraw/,
  });
  assert.equal(offered.length, 2, 'what was written then would be lost with it');
});

test('S0.17 a replica whose site has seized the machine, or given it up, goes by what the next process would find', async (t) => {
  const { files, sites, box } = await copied(t);
  files.fault = undefined;
  const faulty = faultyFiles('replica.json');
  const replica = await sites.openReplica(box.machine.record.machineId, faulty);
  const here = sites.target.siteId;
  const found = async () => (await sites.openReplica(replica.record.machineId)).record.tenure;
  const holds = { state: 'holds', claim: { epoch: 2, siteId: here } } as const;
  faulty.fault = 'sync';
  await assert.rejects(
    replica.update((record) => withTenure(record, holds)),
    OF_RECORD,
  );
  assert.deepEqual([replica.record.tenure, await found()], [holds, holds]);
  // Nothing of it is started, and nobody told, before it is durable.
  await assert.rejects(replica.holdLayers(), OF_RECORD);
  await assert.rejects(replica.settle(), OF_RECORD);
  faulty.fault = undefined;
  await replica.settle();

  const givenUp = { state: 'follows', claim: holds.claim } as const;
  faulty.fault = 'sync';
  await assert.rejects(
    replica.update((record) => withTenure(record, givenUp)),
    OF_RECORD,
  );
  assert.deepEqual([replica.record.tenure, await found()], [givenUp, givenUp]);
  faulty.fault = undefined;
  await replica.update({ machineName: 'crate' });
  faulty.fault = 'rename';
  await assert.rejects(
    replica.update((record) => withTenure(record, holds)),
    OF_RECORD,
  );
  assert.deepEqual(
    [replica.record.tenure, await found()],
    [givenUp, givenUp],
    'it is certain that it failed',
  );
});

for (const fault of ['rename', 'sync', 'read'] as const) {
  test(`F4 S0.17 no machine lies upon a replica whose mark cannot be taken away (${fault}), and it is stored so with the next change`, async (t) => {
    const { files, sites, box } = await copied(t);
    files.fault = undefined;
    const faulty = faultyFiles('replica.json');
    const replica = await sites.openReplica(box.machine.record.machineId, faulty);
    await replica.update({ adopted: 'branch' });
    faulty.fault = fault;
    await replica.disown();
    assert.equal(replica.record.adopted, undefined);
    (await replica.holdLayers('open'))();
    faulty.fault = undefined;
    await replica.update({ machineName: 'crate' });
    const { adopted, machineName } = (await sites.openReplica(replica.record.machineId)).record;
    assert.deepEqual([adopted, machineName], [undefined, 'crate']);
  });
}
