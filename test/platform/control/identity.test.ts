/** Machines that are called something else, and such that claim to be another one. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
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
  const rename = (name: string) => homeApi.call('vm.rename', { ...BOX, body: { name } });
  await assert.rejects(rename('not a name'), { code: 'MACHINE_CONFIGURATION_INVALID' });
  assert.equal((await rename('box')).name, 'box');
  const { machineId } = await rename('crate');
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
  const rename = homeApi.call('vm.rename', { ...BOX, body: { name: 'clone' } });
  await assert.rejects(rename, { code: 'MACHINE_EXISTS' });
});
