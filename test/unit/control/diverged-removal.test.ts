/** A branch that diverged is removed with the machine that it was: wholly, or not at all. */
import assert from 'node:assert/strict';
import { rm, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { ReplicationLoop } from '../../../src/control/machines/replication-loop.ts';
import { endRemovals } from '../../../src/control/replicas/generations.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { isBeingRemoved } from '../../../src/lib/removal.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { eventually } from '../../support/eventually.ts';
import { fencedSite } from '../../support/fenced-site.ts';

const { signal } = new AbortController();

/** Files of which one directory cannot be removed, or what is in it not made durable, as long as it is named. */
function brittleFiles() {
  const broken: { removing?: string; syncing?: string } = {};
  const unless = async (isBroken: boolean, act: () => Promise<void>) => {
    if (isBroken) throw new Error('the disk is broken');
    await act();
  };
  const files: FileSystem = {
    ...nodeFiles,
    removeDirectory: (path) => unless(path === broken.removing, () => nodeFiles.removeDirectory(path)),
    syncDirectory: (path) => unless(path === broken.syncing, () => nodeFiles.syncDirectory(path)),
  };
  return { files, broken };
}

test('S0.17 a branch of which something else cannot be removed first is what it was, and may be removed again', async (t) => {
  const { files, broken } = brittleFiles();
  const { diverged, machine, machineId, machines, branch } = await fencedSite(t, files);
  const { branchId } = await branch();
  const { directory } = machine.layout;
  broken.removing = dirname(machine.record.sockets.qmpPath);
  await assert.rejects(diverged.remove(machineId, branchId, signal), /broken/);
  assert.equal(await isBeingRemoved(files, directory), false, 'the next process removes nothing');
  assert.equal(machines.get(machineId)!.machine, machine);
  assert.ok(machines.get(machineId)!.loop, 'it is looked after as before');
  await machine.right.setApart();
  await machine.right.seizeBack();
  assert.equal(machine.right.tenure.state, 'holds');
  await machine.right.hear({ epoch: 9, siteId: machine.record.superseded![0]!.siteId });
  delete broken.removing;
  const again = await branch();
  assert.equal(await diverged.remove(machineId, again.branchId, signal), true);
  assert.equal(await files.list(directory), undefined);
});

test('S0.17 a branch that is to be moved while it is removed is looked after no more', async (t) => {
  const followed = new Set<unknown>();
  const { start, stop } = ReplicationLoop.prototype;
  t.mock.method(ReplicationLoop.prototype, 'start', function (this: ReplicationLoop) {
    followed.add(this);
    start.call(this);
  });
  t.mock.method(
    ReplicationLoop.prototype,
    'stop',
    async function (this: ReplicationLoop, o: { clearAlerts?: boolean }) {
      followed.delete(this);
      await stop.call(this, o);
    },
  );
  let moving: Promise<void> | undefined;
  const files: FileSystem = {
    ...nodeFiles,
    removeDirectory: async (path) => {
      moving ??= assert.rejects(machines.move(machine, { disks: [] }), { code: 'MACHINE_CHANGING' });
      await nodeFiles.removeDirectory(path);
    },
  };
  const { diverged, machine, machineId, machines, branch } = await fencedSite(t, files);
  const { branchId } = await branch();
  assert.equal(followed.size, 1);
  assert.equal(await diverged.remove(machineId, branchId, signal), true);
  assert.ok(moving);
  await moving;
  assert.equal(machines.get(machineId), undefined);
  assert.equal(followed.size, 0);
});

for (const how of ['removing', 'syncing'] as const) {
  test(`S0.17 a branch whose removal has been decided is no machine of the site any more, and goes with the next start (${how} fails)`, async (t) => {
    const { files, broken } = brittleFiles();
    const { diverged, machine, machineId, machines, branch } = await fencedSite(t, files);
    const { branchId } = await branch();
    const { directory } = machine.layout;
    broken[how] = how === 'removing' ? directory : dirname(directory);
    await assert.rejects(diverged.remove(machineId, branchId, signal), /broken/);
    assert.equal(await isBeingRemoved(files, directory), true);
    assert.equal(machines.get(machineId), undefined);
    assert.deepEqual(await diverged.list(machineId), []);
    await endRemovals({ files: nodeFiles }, dirname(dirname(directory)), (_directory, error) => {
      throw error;
    });
    assert.equal(await files.list(directory), undefined);
    assert.equal(await isBeingRemoved(files, directory), false);
  });
}

test('S0.17 a branch whose files are gone or damaged is removed all the same, but not while somebody writes one of them', async (t) => {
  const { diverged, machine, machineId, branch, locks } = await fencedSite(t);
  const { branchId, about } = await branch();
  const [first, second] = about.disks.map(({ chain }) => chain);
  // The site looks at its machine now and then.
  const release = await eventually(async () => {
    try {
      return locks.take({}, second!.at(-1)!.path, true);
    } catch {
      return undefined;
    }
  });
  await rm(first!.at(-1)!.path);
  await rm(first![0]!.path);
  await assert.rejects(diverged.remove(machineId, branchId, signal), { code: 'REPLICATION_NOT_ENDED' });
  release();
  await truncate(second!.at(-1)!.path, 3);
  assert.equal(await diverged.remove(machineId, branchId, signal), true);
  assert.equal(await nodeFiles.list(machine.layout.directory), undefined);
});

test('S0.17 a branch goes also where the file that its owner had before is damaged', async (t) => {
  const { diverged, machine, machineId, branch } = await fencedSite(t);
  const { branchId } = await branch();
  const [disk] = machine.record.disks;
  const owner = { ...disk!.chain[0]!, format: 'qcow2' as const };
  Object.assign(disk!, { chain: [owner] });
  assert.equal(await diverged.remove(machineId, branchId, signal), true);
  assert.ok((await nodeFiles.sizeOf(owner.path))! > 0, 'and that file stays');
});

test('S0.17 with a branch that was all that the site had of a machine its alerts and trigger tokens go; where copies of it come in, its own alerts', async (t) => {
  const replica = { record: {} } as unknown as Replica;
  for (const kept of [undefined, replica]) {
    const site = await fencedSite(t, nodeFiles, { get: () => kept, broken: [] });
    const { diverged, machineId, branch, alerts, tokens } = site;
    const { branchId } = await branch();
    const [about, others] = [['presence', 'firmware', 'frozen', 'copy', 'turn'], ['retention']];
    for (const one of [...about, ...others]) alerts.set(`${one}:${machineId}`, 'SOMETHING_IS_WRONG');
    alerts.set('firmware:another', 'SOMETHING_IS_WRONG');
    for (const one of [machineId, 'another'])
      tokens.push({ triggerId: one, machineId: one, copyType: 'crash', createdAtMs: 1, tokenDigest: '' });
    assert.equal(await diverged.remove(machineId, branchId, signal), true);
    const left = kept ? others.map((one) => `${one}:${machineId}`) : [];
    assert.deepEqual([...alerts.keys()], [...left, 'firmware:another']);
    assert.deepEqual(
      tokens.map((token) => token.machineId),
      [...(kept ? [machineId] : []), 'another'],
    );
  }
});
