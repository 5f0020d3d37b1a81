/** Machines that are called something else, and such that claim to be another one. */
import assert from 'node:assert/strict';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import type { RouteBody } from '../../../src/api/index.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { BOX, machineThatIsOff } from '../../support/paired-sites.ts';
import {
  BY_HAND,
  DISK_BYTES,
  sitesWithMachine,
  verifiedCopy,
  writeToTip,
} from '../../support/site-of-box.ts';

const MIB = 1024 * 1024;

it('S0.28 a machine that is renamed goes on where it was; its next point has the new name, at both sites', async (t) => {
  const { home, homeApi, awayApi } = await sitesWithMachine(t);
  await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
  await verifiedCopy(homeApi);
  const calledNow = (name: string) => homeApi.call('vm.rename', { ...BOX, body: { name } });
  await assert.rejects(calledNow('not a name'), { code: 'MACHINE_CONFIGURATION_INVALID' });
  assert.equal((await calledNow('box')).name, 'box');
  const { machineId } = await calledNow('crate');
  await assert.rejects(homeApi.call('vm.show', BOX), { code: 'MACHINE_UNKNOWN' });
  assert.equal((await awayApi.call('vm.show', BOX)).machineId, machineId, 'no copy has told it there yet');

  await home.close();
  const again = await home.serve();
  const crate = { params: { machine: 'crate' } };
  const { protected: there } = await again.call('vm.show', crate);
  assert.equal(there!.disks[0]!.chain.length, 2);
  await writeToTip(again, 3, 8 * MIB, crate);
  await verifiedCopy(again, crate);
  const shown = await awayApi.call('vm.show', crate);
  assert.equal(shown.machineId, machineId);
  const points = await awayApi.call('point.list', crate);
  assert.equal(points.length, 2);
  assert.ok(points[1]!.receivedBytes! < 2 * MIB, `${points[1]!.receivedBytes} bytes`);
  const { entries } = await again.call('audit.list');
  assert.ok(entries.some(({ act, details }) => act === 'vm.rename' && details.name === 'crate'));
});

it('S0.28 a machine with the UUID or the name of another one is refused, and nothing of it is left', async (t) => {
  const { homeApi, directory } = await sitesWithMachine(t);
  const path = join(directory, 'clone.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(DISK_BYTES)]);
  const body = machineThatIsOff({ path, sizeBytes: DISK_BYTES, format: 'qcow2' });
  assert.ok('configuration' in body);
  const configuration = body.configuration as Record<string, unknown>;
  const add = (change: object) =>
    homeApi.call('vm.add', { body: { ...body, configuration: { ...configuration, ...change } } });
  await assert.rejects(add({ name: 'clone' }), { code: 'MACHINE_UUID_TAKEN' });
  const uuid = '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ac';
  await assert.rejects(add({ uuid }), { code: 'MACHINE_EXISTS' });
  assert.equal((await homeApi.call('vm.list')).length, 1);
  await add({ uuid, name: 'clone' });
  const calledNow = homeApi.call('vm.rename', { ...BOX, body: { name: 'clone' } });
  await assert.rejects(calledNow, { code: 'MACHINE_EXISTS' });
});

it('S0.28 the file of a disk is moved over the API: what is another machine’s or no place of this one is refused, and the next copy is incremental', async (t) => {
  const { homeApi, awayApi, directory, disk } = await sitesWithMachine(t);
  await homeApi.call('vm.protect', { ...BOX, body: BY_HAND });
  await verifiedCopy(homeApi);
  const moved = join(directory, 'moved.qcow2');
  const move = (body: RouteBody<'vm.move'>) => homeApi.call('vm.move', { ...BOX, body });
  const to = (path: string, diskId = 'disk0') => ({ disks: [{ diskId, path, format: 'qcow2' as const }] });
  await assert.rejects(move({ qmpPath: join(directory, 'qmp') }), { code: 'MACHINE_PLACE_OURS' });
  await assert.rejects(move({}), { code: 'API_REQUEST_INVALID' });
  await assert.rejects(move(to(moved)), { code: 'PROTECTION_DISK_GONE' });
  await assert.rejects(move(to(moved, 'disk9')), { code: 'PROTECTION_DISK_UNKNOWN' });
  const other = join(directory, 'other.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', other, String(DISK_BYTES)]);
  const body = machineThatIsOff({ path: other, sizeBytes: DISK_BYTES, format: 'qcow2' });
  assert.ok('configuration' in body);
  const uuid = '6f1f2c3e-0d2a-4b5e-8f7a-0123456789ac';
  const configuration = { ...(body.configuration as object), name: 'other', uuid };
  await homeApi.call('vm.add', { body: { ...body, configuration } });
  await assert.rejects(move(to(other)), { code: 'MACHINE_EXISTS' });

  await rename(disk, moved);
  const shown = await move(to(moved));
  assert.equal(shown.protected!.disks[0]!.chain[0]!.path, moved);
  await writeToTip(homeApi, 4, 8 * MIB);
  await verifiedCopy(homeApi);
  const points = await awayApi.call('point.list', BOX);
  assert.ok(points[1]!.receivedBytes! < 2 * MIB, `${points[1]!.receivedBytes} bytes`);
  assert.deepEqual(await homeApi.call('alert.list'), []);
});
