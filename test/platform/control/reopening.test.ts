import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { BrokenReplicas } from '../../../src/control/watch/broken-replicas.ts';
import { fileFailure } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { type Replica, Replicas, verifyPoint } from '../../../src/replica/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { BY_HAND, copyAndSend } from '../../support/lab-sites.ts';
import { twoSites } from '../../support/two-sites.ts';

test('S0.30 a replica whose files could not be read is taken up again by itself', async (t) => {
  const sites = await twoSites(t);
  const path = join(sites.directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, '1M']);
  const machine = await sites.addMachine([{ diskId: 'disk', path, sizeBytes: 1024 ** 2 }]);
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  const { pointId } = await copyAndSend(machine, sites.target);
  const { machineId } = machine.record;

  let isAway = true;
  const files = {
    ...nodeFiles,
    list: (directory: string) =>
      isAway && directory.endsWith('/points')
        ? Promise.reject(fileFailure('read', directory, new Error('EIO')))
        : nodeFiles.list(directory),
  };
  const tools = { ...sites.replicaTools, files };
  const replicas = await Replicas.open(tools, join(sites.directory, 'r'));
  assert.equal(replicas.broken.length, 1);
  const raised = new Map<string, string>();
  const clock = new FakeClock();
  const prepared: Replica[] = [];
  const { promise: opened, resolve } = Promise.withResolvers<Replica>();
  const { promise: failedAgain, resolve: toldAgain } = Promise.withResolvers<void>();
  const broken = new BrokenReplicas({
    ...{ replicas, clock },
    alerts: {
      raise: (key, _severity, failure) => {
        if (raised.has(key)) toldAgain();
        raised.set(key, failure.code);
      },
      clear: (key) => void raised.delete(key),
    },
    prepare: async (replica) => {
      assert.equal(replicas.get(machineId), undefined, 'nothing is received into it yet');
      prepared.push(replica);
    },
    onOpened: resolve,
  });
  t.after(() => broken.close());
  assert.deepEqual([...raised], [[`replica:${machineId}`, 'FILE_UNREADABLE']]);

  await clock.advance(60_000);
  await failedAgain;
  isAway = false;
  // The next pause begins when the round has quite ended.
  while (replicas.broken.length > 0) await clock.turn(60_000);
  const replica = await opened;
  assert.deepEqual([prepared, replicas.broken, replicas.need(machineId)], [[replica], [], replica]);
  await verifyPoint(tools, replica, pointId);
  await broken.close();
  assert.deepEqual([...raised], []);
});
