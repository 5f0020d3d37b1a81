import assert from 'node:assert/strict';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import type { MachineConfiguration } from '../../../src/hypervisor/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { BOX, machineThatIsOff, pairedSites, resultOf } from '../../support/paired-sites.ts';

const MIB = 1024 * 1024;
const BLOCK = 65_536;
const DISK_BYTES = 64 * MIB;
const USED_BYTES = 24 * MIB;

it('S0.27 of a machine with older copies at the recovery site, raw and qcow2, what differs crosses the wire', {
  timeout: 120_000,
}, async (t) => {
  const { directory, homeApi, awayApi } = await pairedSites(t);
  const first = join(directory, 'first.raw');
  const second = join(directory, 'second.raw');
  for (const path of [first, second]) {
    await writeFile(path, systemRandom.bytes(USED_BYTES));
    await truncate(path, DISK_BYTES);
  }
  // Backups of long ago: one is shorter, as the disk was grown since; the other one has another format.
  const older = { raw: join(directory, 'older.raw'), qcow2: join(directory, 'older.qcow2') };
  await runCommand('cp', ['--sparse=always', first, older.raw]);
  await truncate(older.raw, DISK_BYTES - 4096);
  await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', second, older.qcow2]);
  const writes = ['write -q -P 1 1M 300k', 'write -q -P 2 40M 70k', 'write -q -z 8M 128k'];
  for (const path of [first, second])
    await runCommand('qemu-io', ['-f', 'raw', ...writes.flatMap((write) => ['-c', write]), path]);
  const differingBytes = 2 * (5 * BLOCK + 2 * BLOCK);

  const disks = [
    { diskId: 'disk0', path: older.raw, format: 'raw' as const },
    { diskId: 'disk1', path: older.qcow2, format: 'qcow2' as const },
  ];
  await assert.rejects(
    awayApi.call('seed.offer', { ...BOX, body: { disks: [{ ...disks[1]!, format: 'raw' }] } }),
    { code: 'REPLICA_OLDER_COPY_UNFIT' },
  );
  const offered = await awayApi.call('seed.offer', { ...BOX, body: { disks } });
  assert.equal(offered.siteName, 'home');

  const body = machineThatIsOff({ path: first, sizeBytes: DISK_BYTES, format: 'raw' });
  assert.ok('configuration' in body);
  const configuration = body.configuration as MachineConfiguration;
  const described = { diskId: 'disk1', bus: 'virtio-blk' as const, sizeBytes: DISK_BYTES };
  await homeApi.call('vm.add', {
    body: {
      ...body,
      configuration: { ...configuration, disks: [...configuration.disks, described] },
      disks: [...body.disks, { diskId: 'disk1', path: second, format: 'raw' }],
    },
  });
  await homeApi.call('vm.protect', {
    ...BOX,
    body: { every: {}, retention: { types: { crash: 100, app: 0 } }, compression: false },
  });
  const created = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
  assert.ok('job' in created);
  await resultOf(homeApi, created.job);

  const [point, ...others] = await awayApi.call('point.list', BOX);
  assert.deepEqual(others, []);
  const { receivedBytes = 0, olderBytes } = point!;
  t.diagnostic(`${receivedBytes} bytes crossed the wire, ${differingBytes} differ, ${olderBytes} were taken`);
  assert.ok(receivedBytes < differingBytes * 1.1, `${receivedBytes} bytes for ${differingBytes}`);
  assert.ok(olderBytes! > 2 * USED_BYTES - 2 * MIB, `${olderBytes} bytes were taken`);
  const params = { machine: 'box', point: point!.pointId };
  await resultOf(awayApi, await awayApi.call('point.verify', { params }));
  assert.deepEqual(await awayApi.call('seed.offers'), [], 'the offer has gone with the base');
  await assert.rejects(awayApi.call('seed.offer', { ...BOX, body: { disks } }), {
    code: 'OLDER_COPY_UNNEEDED',
  });
  // Nobody holds the files: a writer gets its lock.
  await runCommand('qemu-io', ['-f', 'qcow2', '-c', 'write -q -z 0 64k', older.qcow2]);
});
