/** Machines that this host has no QEMU for: it is said when their copies arrive, and a failover changes nothing. Nothing boots. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { QemuHypervisor } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { BOX, copy, ended, machineThatIsOff, pairedSites } from '../../support/paired-sites.ts';

const SIZE_BYTES = 8 * 1024 * 1024;

it('F8 QEMU tells which machines and processors it has, under all their names', async () => {
  const { machineTypes, cpuModels, firmware, hasTpm, memoryBytes } = await new QemuHypervisor({
    clock: systemClock,
  }).offer();
  for (const name of ['q35', 'pc', 'pc-q35-7.2']) assert.ok((machineTypes.get(name)?.cpusMax ?? 0) > 1, name);
  for (const name of ['Nehalem', 'qemu64', 'max']) assert.deepEqual(cpuModels.get(name)?.missingFeatures, []);
  assert.ok(firmware.length > 0);
  assert.ok(hasTpm);
  assert.ok(memoryBytes > 0);
});

it('F8 what would not start is said when it arrives and whenever one asks, and a failover of it takes nothing from the other site', async (context) => {
  const { directory, away, homeApi, awayApi } = await pairedSites(context);
  const path = join(directory, 'box.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE_BYTES)]);
  const request = machineThatIsOff({ path, sizeBytes: SIZE_BYTES, format: 'qcow2' });
  assert.ok('configuration' in request);
  const configuration = {
    ...(request.configuration as object),
    ...{ machineVersion: 'pc-q35-99.0', cpuModel: 'Imaginary-v9' },
  };
  await homeApi.call('vm.add', { body: { ...request, configuration } });
  await homeApi.call('vm.protect', { ...BOX, body: { schedules: [] } });
  await copy(homeApi, 1);

  const because =
    /would not start here, because QEMU here has no machine type pc-q35-99\.0; QEMU here has no processor model Imaginary-v9/;
  const alert = await away.until(async () => (await awayApi.call('alert.list'))[0]);
  assert.deepEqual([alert.code, alert.severity], ['FAILOVER_WOULD_NOT_START', 'critical']);
  assert.match(alert.message, because);

  const params = { machine: 'box', point: 'latest' };
  const { wouldStart, findings } = await awayApi.call('failover.check', { params });
  assert.equal(wouldStart, false);
  assert.deepEqual(
    findings.map(({ code, prevents }) => [code, prevents]),
    [
      ['MACHINE_TYPE_MISSING', true],
      ['MACHINE_CPU_MISSING', true],
    ],
  );
  for (const api of [homeApi, awayApi]) {
    const start = (await api.call('doctor')).checks.find(({ check }) => check === 'start of box');
    assert.equal(start?.verdict, 'failed');
    assert.match(start.found, /pc-q35-99\.0/);
    assert.match(start.remedy!, /Install the QEMU/);
  }

  const failover = await ended(
    awayApi,
    await awayApi.call('failover.start', { ...BOX, body: { confirmOtherSideDown: true } }),
  );
  assert.equal(failover.failure?.code, 'FAILOVER_WOULD_NOT_START');
  assert.match(failover.failure.message, because);
  const test = await ended(awayApi, await awayApi.call('failover.test', { ...BOX, body: {} }));
  assert.equal(test.failure?.code, 'FAILOVER_WOULD_NOT_START');
  const cession = await ended(homeApi, await homeApi.call('failover.cede', { ...BOX, body: {} }));
  assert.equal(cession.failure?.code, 'MACHINE_NOT_THERE', 'nothing is offered that could not be taken');
  assert.match(cession.failure.message, because);
  const [replica] = await awayApi.call('vm.list');
  assert.equal(replica!.replica!.state, 'standby');
  assert.equal(replica!.epoch, 1, 'the right to run the machine is where it was');
  assert.deepEqual(await awayApi.call('failover.list', BOX), []);
  await copy(homeApi, 2);
});

it('F8 a bridge that is not there is said before a failover takes the right', async (context) => {
  const { directory, homeApi, awayApi } = await pairedSites(context);
  const path = join(directory, 'box.qcow2');
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE_BYTES)]);
  const lan = { nicId: 'lan', model: 'e1000', mac: '52:54:00:ab:00:01', network: 'office' } as const;
  const body = machineThatIsOff({ path, sizeBytes: SIZE_BYTES, format: 'qcow2' }, [lan]);
  await homeApi.call('vm.add', { body });
  await homeApi.call('vm.protect', { ...BOX, body: { schedules: [] } });
  await copy(homeApi, 1);
  // The loopback is there, and no bridge.
  for (const [mapping, said] of [
    [{ kind: 'bridge', bridge: 'ws-none' }, /no bridge ws-none, to which lan/],
    [{ kind: 'bridge', bridge: 'lo' }, /no bridge lo/],
    [{ kind: 'tap', interfaceName: 'ws-none' }, /no tap ws-none/],
  ] as const) {
    const request = { confirmOtherSideDown: true, networks: { lan: mapping } } as const;
    const { failure } = await ended(awayApi, await awayApi.call('failover.start', { ...BOX, body: request }));
    assert.equal(failure?.code, 'FAILOVER_NETWORK_MISSING');
    assert.match(failure.message, said);
  }
  const [replica] = await awayApi.call('vm.list');
  assert.deepEqual([replica!.epoch, replica!.replica!.state], [1, 'standby']);
});
