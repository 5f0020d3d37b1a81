/** The replica of a machine that somebody else has started, held against that machine part by part. Nothing boots: its disks hold no system. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { startLabMachine } from '../../../lab/index.ts';
import { siteFiles } from '../../../src/control/base/site-files.ts';
import { QemuImages, runPaths } from '../../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { ReplicaLayout } from '../../../src/replica/index.ts';
import { assertSameContent } from '../../support/lab-sites.ts';
import { BOX, pairedSites, resultOf } from '../../support/paired-sites.ts';

const MIB = 1024 * 1024;
const SIZES_MIB = [1, 2, 3] as const;

type Execute = (command: string, args?: object) => Promise<unknown>;

interface PciDevice {
  readonly slot: number;
  readonly function: number;
  readonly class_info: { readonly class: number };
  readonly id: { readonly vendor: number; readonly device: number };
  readonly pci_bridge?: {
    readonly bus: { readonly secondary: number };
    readonly devices?: readonly PciDevice[];
  };
}

/** The buses with what is behind their ports, which QEMU tells of once the firmware has numbered them: no event says so. */
async function numberedBuses(execute: Execute): Promise<readonly PciDevice[]> {
  for (;;) {
    const buses = (await execute('query-pci')) as { devices: PciDevice[] }[];
    const devices = buses.flatMap((bus) => bus.devices);
    if (devices.every(({ pci_bridge }) => pci_bridge?.bus.secondary !== 0)) return devices;
    await sleep(systemClock, 20);
  }
}

/** What a guest finds of its machine, as QEMU tells it of the devices that are really there. */
async function hardwareOf(execute: Execute) {
  const onBuses = await numberedBuses(execute);
  const placed = (devices: readonly PciDevice[], at: string): string[] =>
    devices.flatMap((device) => {
      const place = `${at}${device.slot}.${device.function}`;
      const { vendor, device: model } = device.id;
      const what = [vendor, model, device.class_info.class].map((id) => id.toString(16)).join(':');
      return [`${place} ${what}`, ...placed(device.pci_bridge?.devices ?? [], `${place}/`)];
    });
  const read = async (path: string, property: string) => String(await execute('qom-get', { path, property }));
  const disks = (await execute('query-block')) as {
    qdev: string;
    inserted?: { image: { 'virtual-size': number } };
  }[];
  const nics: string[] = [];
  for (const parent of ['/machine/peripheral', '/machine/peripheral-anon']) {
    const children = (await execute('qom-list', { path: parent })) as { name: string; type: string }[];
    for (const { name, type } of children) {
      if (/^child<(virtio-net|e1000)/.test(type)) nics.push(await read(`${parent}/${name}`, 'mac'));
    }
  }
  const cpus = (await execute('query-cpus-fast')) as { 'qom-path': string }[];
  return {
    type: await read('/machine', 'type'),
    uuid: await execute('query-uuid'),
    memory: await execute('query-memory-size-summary'),
    cpus: await Promise.all(cpus.map((cpu) => read(cpu['qom-path'], 'type'))),
    pci: placed(onBuses, '').sort(),
    disks: await Promise.all(
      disks.map(async ({ qdev, inserted }) => {
        const path = qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`;
        return [await read(path, 'serial'), inserted?.image['virtual-size']];
      }),
    ),
    nics,
  };
}

it('S0.1 a replica is its machine: on standby with the same definition and base, and of the same devices when it runs', {
  timeout: 180_000,
}, async (context) => {
  const { t, directory, away, homeApi, awayApi } = await pairedSites(context);
  const drives = await Promise.all(
    SIZES_MIB.map(async (mib) => {
      const path = join(directory, `${mib}.qcow2`);
      await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(mib * MIB)]);
      await runCommand('qemu-io', ['-f', 'qcow2', '-c', `write -q -P ${mib} 64k 300k`, path]);
      const file = { driver: 'file', filename: path };
      return JSON.stringify({ driver: 'qcow2', 'node-name': `n${mib}`, file });
    }),
  );
  const lab = await startLabMachine({
    directory,
    disks: [],
    extraArgs: [
      ...['-uuid', '11111111-2222-4333-8444-555555555555', '-smp', '2'],
      // In no order that QEMU would have come to by itself: the one of libvirt has ports, people's own has slots.
      ...['-device', 'pcie-root-port,id=p0,chassis=1,slot=1,bus=pcie.0,addr=05.0,multifunction=on'],
      ...['-device', 'pcie-root-port,id=p1,chassis=2,slot=2,bus=pcie.0,addr=05.1'],
      ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,mac=52:54:00:12:34:56,bus=p1'],
      ...['-netdev', 'hubport,id=h,hubid=0', '-device', 'e1000,netdev=h,mac=52:54:00:12:34:57,addr=10.0'],
      ...['-netdev', 'hubport,id=i,hubid=1', '-device', 'e1000,netdev=i,mac=52:54:00:12:34:58,addr=0f.0'],
      ...['-blockdev', drives[0]!, '-device', 'virtio-blk-pci,drive=n1,id=root,serial=ROOT-1,addr=1d.0'],
      ...['-blockdev', drives[1]!, '-device', 'virtio-scsi-pci,addr=08.0'],
      ...['-device', 'scsi-hd,drive=n2,id=store,serial=STORE-2'],
      ...['-blockdev', drives[2]!, '-device', 'ide-hd,drive=n3,id=old'],
    ],
  });
  t.after(() => lab.stop());
  const attach = { name: 'box', qmpPath: lab.qmpPath, agentPath: lab.agentPath };
  await homeApi.call('vm.add', { body: { attach } });
  await homeApi.call('vm.protect', { ...BOX, body: { schedules: [] } });
  const made = await homeApi.call('point.create', { ...BOX, body: { type: 'crash', wait: true } });
  assert.ok('job' in made && made.job);
  await resultOf(homeApi, made.job);
  // What is written from now on lies above the base.
  const write = {
    'command-line': 'qemu-io -d /machine/peripheral/root/virtio-backend "write -q -P 9 0 64k"',
  };
  assert.equal(await lab.execute('human-monitor-command', write), '');

  const original = await homeApi.call('vm.show', BOX);
  const [replica] = await awayApi.call('vm.list');
  assert.deepEqual([replica?.role, replica?.replica?.state], ['replica', 'standby']);
  assert.deepEqual(replica?.configuration, original.configuration, 'nothing of it is mapped before it runs');
  const layout = new ReplicaLayout(away.dataDirectory, replica!.machineId);
  const images = new QemuImages({ clock: systemClock });
  const { pointId } = replica!.replica!.newest!;
  for (const { diskId, chain } of original.protected!.disks) {
    const [base] = chain;
    await assertSameContent(images, [base!], [{ path: layout.layer(diskId, pointId), format: 'qcow2' }]);
  }

  const test = await awayApi.call('failover.test', { ...BOX, body: { keep: true, probes: [] } });
  const { branchId } = (await resultOf(awayApi, test)) as { branchId: string };
  assert.equal(
    (await awayApi.call('vm.show', BOX)).replica?.state,
    'standby',
    'a test changes nothing of that',
  );
  // The monitor of a machine serves one client at a time.
  await away.close();
  const { qmpPath } = runPaths(join(siteFiles(away.dataDirectory).run, branchId));
  const qmp = await QmpClient.connect({ path: qmpPath, clock: systemClock });
  t.after(() => qmp.close());
  const execute: Execute = (command, args) => qmp.execute(command, args as Record<string, unknown>);
  const found = await hardwareOf(execute);
  assert.deepEqual(found, await hardwareOf((command, args) => lab.execute(command, args)));
});
