import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { runCommand } from '../../../src/lib/processes.ts';
import { verifyPoint } from '../../../src/replica/index.ts';
import { assertSameContent, BY_HAND, copyAndSend } from '../../support/lab-sites.ts';
import { twoSites } from '../../support/two-sites.ts';

const GIB = 1024 ** 3;

test('S0.3 zeros are neither sent nor read: an empty disk and a discarded one cost next to nothing', async (t) => {
  const sites = await twoSites(t);
  const path = join(sites.directory, 'disk.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(64 * GIB)]);
  const machine = await sites.addMachine([{ diskId: 'disk', path, sizeBytes: 64 * GIB }]);
  await machine.protect({ ...BY_HAND, targetSiteId: sites.target.siteId });
  const write = (...commands: string[]) => {
    const tip = machine.chain('disk').at(-1)!;
    return runCommand('qemu-io', ['-f', tip.format, ...commands.flatMap((one) => ['-c', one]), tip.path]);
  };

  const empty = await copyAndSend(machine, sites.target);
  assert.ok(empty.wireBytes < 16 * 1024, `${empty.wireBytes} bytes for an empty disk`);

  await write('write -P 0x5a 1M 3M', 'write -P 0xa5 40G 1M');
  await copyAndSend(machine, sites.target);

  // Ends within blocks, so that some of them are zero only in part.
  await write('write -z -n 1028k 32G', 'write -P 0x11 2M 4k');
  const { pointId, wireBytes } = await copyAndSend(machine, sites.target);
  assert.ok(wireBytes < 300 * 1024, `${wireBytes} bytes for 32 GiB of zeros`);

  const replica = sites.replicas.need(machine.record.machineId);
  await verifyPoint(sites.replicaTools, replica, pointId);
  const { images } = sites.protectedTools;
  await assertSameContent(images, replica.chain(pointId, 'disk'), machine.chain('disk'));
});
