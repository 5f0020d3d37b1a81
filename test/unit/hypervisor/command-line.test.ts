import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MachineConfiguration, StartRequest } from '../../../src/hypervisor/index.ts';
import { qemuArguments } from '../../../src/hypervisor/qemu/command-line.ts';

const CONFIGURATION: MachineConfiguration = {
  ...{ name: 'web', uuid: '6a1c5a5e-0000-4000-8000-00000000000c', architecture: 'x86_64', chipset: 'q35' },
  ...{ firmware: 'bios', cpus: 2, memoryBytes: 512 * 1024 * 1024, guestAgent: true },
  disks: [{ diskId: 'root', bus: 'virtio-blk', sizeBytes: 1024 * 1024 }],
  nics: [{ nicId: 'lan', model: 'virtio-net-pci', mac: '52:54:00:00:00:01', network: 'production' }],
};

const REQUEST: StartRequest = {
  configuration: CONFIGURATION,
  disks: {
    root: [
      { path: '/d/base.raw', format: 'raw' },
      { path: '/d/tip.qcow2', format: 'qcow2' },
    ],
  },
  runDirectory: '/run/web',
};

function optionsOf(args: readonly string[], name: string): string[] {
  return args.flatMap((arg, index) => (arg === name ? [args[index + 1]!] : []));
}

test('every file of a chain is named with its driver, and only the last one is writable', () => {
  const [node] = optionsOf(qemuArguments(REQUEST, 'tcg'), '-blockdev').map((text) => JSON.parse(text));
  assert.equal(node.driver, 'qcow2');
  assert.equal(node['read-only'], false);
  assert.deepEqual(node.file, { driver: 'file', filename: '/d/tip.qcow2' });
  assert.equal(node.backing.driver, 'raw');
  assert.equal(node.backing['read-only'], true);
  assert.equal(node.backing.backing, undefined, 'raw has no backing file to be told of');
});

test('a NIC that is connected to nothing keeps its device and its address', () => {
  const args = qemuArguments(REQUEST, 'tcg');
  assert.ok(optionsOf(args, '-device').some((device) => device.includes('mac=52:54:00:00:00:01')));
  assert.match(optionsOf(args, '-netdev')[0]!, /^hubport,/);
  const tapped = qemuArguments(
    { ...REQUEST, networks: { lan: { kind: 'tap', interfaceName: 'tap7' } } },
    'tcg',
  );
  assert.match(optionsOf(tapped, '-netdev')[0]!, /^tap,.*ifname=tap7,script=no,downscript=no$/);
});

test('the defaults of the binary are taken away', () => {
  const args = qemuArguments(REQUEST, 'kvm');
  for (const flag of ['-nodefaults', '-no-user-config', '-sandbox']) assert.ok(args.includes(flag), flag);
  assert.match(optionsOf(args, '-machine')[0]!, /accel=kvm/);
});

test('a disk without an image and a machine that needs UEFI are refused before anything is started', () => {
  assert.throws(() => qemuArguments({ ...REQUEST, disks: {} }, 'tcg'), {
    code: 'MACHINE_CONFIGURATION_INVALID',
  });
  const uefi: StartRequest = { ...REQUEST, configuration: { ...CONFIGURATION, firmware: 'uefi' } };
  assert.throws(() => qemuArguments(uefi, 'tcg'), { code: 'MACHINE_FIRMWARE_UNSUPPORTED' });
});
