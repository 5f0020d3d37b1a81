import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { removalSign } from '../../../src/lib/removal.ts';
import { createBranch, Replicas, removeBranch, verifyPoint } from '../../../src/replica/index.ts';
import { BY_HAND, copyAndSend } from '../../support/lab-sites.ts';
import { twoSites } from '../../support/two-sites.ts';

const MIB = 1024 ** 2;
const BRANCH = '0123456789abcdefghjkmnpqrs';

test('a replica that nobody needs is removed whole, and protecting its machine again seeds anew', async (t) => {
  let isFailing = false;
  let isSignFailing = false;
  const replicaFiles = {
    ...nodeFiles,
    syncDirectory: async (path: string) => {
      if (isSignFailing && path.endsWith('/replicas')) {
        isSignFailing = false;
        throw fileFailure('sync', path, new Error('EIO'));
      }
      await nodeFiles.syncDirectory(path);
    },
    removeDirectory: (path: string) =>
      isFailing
        ? Promise.reject(fileFailure('write', path, new Error('EIO')))
        : nodeFiles.removeDirectory(path),
  };
  const sites = await twoSites(t, { replicaFiles });
  const path = join(sites.directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(16 * MIB)]);
  const machine = await sites.addMachine([{ diskId: 'disk', path, sizeBytes: 16 * MIB }]);
  const { machineId } = machine.record;
  const { replicas, target } = sites;
  const protect = () => machine.protect({ ...BY_HAND, targetSiteId: target.siteId });
  await protect();
  const { pointId } = await copyAndSend(machine, target);
  await machine.unprotect();
  await protect();
  await machine.cut('crash');
  await assert.rejects(machine.replicate(target), { code: 'REPLICATION_CONFLICT' });

  const replica = replicas.need(machineId);
  const needed = (what: RegExp) =>
    assert.rejects(replicas.remove(machineId), { code: 'REPLICA_NEEDED', message: what });
  await createBranch(nodeFiles, replica, { branchId: BRANCH, pointId, purpose: 'test', createdAtMs: 0 });
  await needed(/branches \(1\)/);
  await removeBranch(nodeFiles, replica, BRANCH);
  await replica.reading(() => needed(/reads it/));
  const stuck = replica.receive(BRANCH, Readable.from([]));
  await needed(/coming in/);
  await assert.rejects(stuck, { code: 'REPLICA_SESSION_UNKNOWN' });
  await verifyPoint(sites.replicaTools, replica, pointId);

  // A decision that may not have become durable is taken back, and the replica goes on.
  isSignFailing = true;
  await assert.rejects(replicas.remove(machineId), { code: 'FSYNC_FAILED' });
  await replica.update({ machineName: 'lab' });
  await assert.rejects(access(removalSign(replica.layout.directory)), { code: 'ENOENT' });

  // The process ends when the decision has been made and nothing has gone yet.
  isFailing = true;
  await assert.rejects(replicas.remove(machineId), { code: 'FILE_UNWRITABLE' });
  isFailing = false;
  await assert.rejects(replica.update({ epoch: 7 }), { code: 'REPLICA_REMOVED' });
  await assert.rejects(target.describe(machineId), 'it does not look like one that was never there');
  const directory = join(sites.directory, 'r');
  const reopened = await Replicas.open(sites.replicaTools, directory);
  assert.deepEqual([reopened.list(), reopened.broken], [[], []]);
  await assert.rejects(access(replica.layout.directory), { code: 'ENOENT' });
  await assert.rejects(access(removalSign(replica.layout.directory)), { code: 'ENOENT' });

  // In the process that goes on, the same is brought to its end by asking again.
  await replicas.remove(machineId);
  assert.deepEqual([replicas.get(machineId), replicas.broken], [undefined, []]);
  await assert.rejects(replicas.remove(machineId), { code: 'REPLICA_UNKNOWN' });
  await machine.replicate(target);
  const anew = replicas.need(machineId);
  assert.equal(anew.points.length, 1);
  await verifyPoint(sites.replicaTools, anew, anew.newest!.statement.pointId);
});
