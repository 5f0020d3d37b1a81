import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Firmware } from '../../../src/hypervisor/index.ts';
import {
  type MachineConfiguration,
  placeOfNewDisk,
  type StartRequest,
} from '../../../src/hypervisor/index.ts';
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

/** By id of device: where it is told to go. */
function placesOf(configuration: Partial<MachineConfiguration>): Record<string, string | undefined> {
  const disks = Object.fromEntries(
    (configuration.disks ?? []).map(({ diskId }) => [diskId, REQUEST.disks.root!]),
  );
  const request = { ...REQUEST, configuration: { ...CONFIGURATION, ...configuration } };
  const devices = optionsOf(
    qemuArguments({ ...request, disks: { ...REQUEST.disks, ...disks } }, 'tcg'),
    '-device',
  );
  return Object.fromEntries(
    devices.map((device) => [/id=([^,]+)/.exec(device)?.[1], /,(bus=[^,]*,addr=.*)$/.exec(device)?.[1]]),
  );
}

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

test('a disk without an image is refused before anything is started', () => {
  assert.throws(() => qemuArguments({ ...REQUEST, disks: {} }, 'tcg'), {
    code: 'MACHINE_CONFIGURATION_INVALID',
  });
});

test('S0.1 devices go where they were, and what is not told goes where nothing is', () => {
  const nic = (nicId: string, pciPlace?: string): MachineConfiguration['nics'][number] => ({
    ...{ nicId, model: 'e1000', mac: `52:54:00:00:00:0${nicId}`, network: 'lan' },
    ...(pciPlace === undefined ? {} : { pciPlace }),
  });
  const untold = Object.values(placesOf({}));
  assert.ok(
    untold.every((place) => place === undefined),
    'QEMU chooses where nothing is told',
  );
  assert.deepEqual(
    placesOf({
      rootPorts: ['02.0', '02.1', '02.1'],
      nics: [nic('1', '02.1/00.0'), nic('2', '01.0'), nic('3'), nic('4', '10.1'), nic('5', '10.0')],
    }),
    {
      'port-02-0': 'bus=pcie.0,addr=02.0,multifunction=on',
      'port-02-1': 'bus=pcie.0,addr=02.1',
      vga: 'bus=pcie.0,addr=03.0',
      ports: 'bus=pcie.0,addr=04.0',
      agent: undefined,
      'dev-root': 'bus=pcie.0,addr=05.0',
      'dev-1': 'bus=port-02-1,addr=00.0',
      'dev-2': 'bus=pcie.0,addr=01.0',
      'dev-3': 'bus=pcie.0,addr=06.0',
      'dev-4': 'bus=pcie.0,addr=10.1',
      'dev-5': 'bus=pcie.0,addr=10.0,multifunction=on',
    },
  );
  // A function without a first one, behind a port that is not there, where the chipset is, and one place twice.
  const impossible = [
    nic('1', '08.3'),
    nic('2', '09.0/00.0'),
    nic('3', '1f.0'),
    nic('4', '07.0'),
    nic('5', '07.0'),
  ];
  const {
    'dev-1': one,
    'dev-2': two,
    'dev-3': three,
    'dev-4': four,
    'dev-5': five,
  } = placesOf({ nics: impossible });
  const free = ['04', '05', '06', '08'].map((slot) => `bus=pcie.0,addr=${slot}.0`);
  assert.deepEqual([one, two, three, five], free);
  assert.equal(four, 'bus=pcie.0,addr=07.0');
  const older = placesOf({
    chipset: 'pc',
    rootPorts: ['05.0'],
    nics: [nic('1', '05.0/00.0'), nic('2', '03.0')],
  });
  assert.deepEqual([older['dev-2'], older['port-05-0']], ['bus=pci.0,addr=03.0', undefined]);
  assert.equal(
    older['dev-1'],
    'bus=pci.0,addr=06.0',
    'the first slots are of the chipset and of what is ours',
  );
});

test('S0.28 a disk that a machine gets moves no other device, whatever QEMU had given them', () => {
  const { disks } = CONFIGURATION;
  const [first] = disks as [MachineConfiguration['disks'][number]];
  const late = { ...first, diskId: 'late', pciPlace: placeOfNewDisk(CONFIGURATION, 'virtio-blk')! };
  // As QEMU gives them out, which `failover/replica-definition` looks at: the card, the ports, disks, NICs.
  const before = { vga: '01.0', ports: '02.0', 'dev-root': '03.0', 'dev-lan': '04.0' };
  const now = placesOf({ disks: [...disks, late] });
  for (const [device, place] of Object.entries({ ...before, 'dev-late': '10.0' })) {
    assert.equal(now[device], `bus=pcie.0,addr=${place}`, device);
  }
  const two = { ...CONFIGURATION, disks: [...disks, late] };
  assert.equal(placeOfNewDisk(two, 'virtio-blk'), '11.0', 'behind the one that came before');
  assert.equal(placeOfNewDisk(two, 'virtio-scsi'), '11.0', 'its controller');
  assert.equal(
    placeOfNewDisk({ ...two, disks: [{ ...first, bus: 'virtio-scsi' }] }, 'virtio-scsi'),
    undefined,
  );
  assert.equal(placeOfNewDisk(two, 'sata'), undefined);
});

const VARIABLES_BYTES = 540_672;
const PLAIN: Firmware = {
  descriptor: '/usr/share/qemu/firmware/60-plain.json',
  code: { path: '/f/CODE.fd', format: 'raw' },
  template: { path: '/f/VARS.fd', format: 'raw' },
  variablesBytes: VARIABLES_BYTES,
  machines: ['pc-i440fx-*', 'pc-q35-*'],
  features: ['acpi-s3'],
};
const SECURE: Firmware = {
  ...PLAIN,
  code: { path: '/f/SECURE.fd', format: 'raw' },
  machines: ['pc-q35-*'],
  features: ['secure-boot', 'requires-smm'],
};
const UEFI: MachineConfiguration = {
  ...CONFIGURATION,
  firmware: 'uefi',
  disks: [...CONFIGURATION.disks, { diskId: 'variables', bus: 'pflash', sizeBytes: VARIABLES_BYTES }],
};
const VARIABLES_CHAIN = [
  { path: '/d/vars.fd', format: 'raw' as const },
  { path: '/d/vars-tip.qcow2', format: 'qcow2' as const },
];

function uefiArguments(change: Partial<MachineConfiguration>, described: readonly Firmware[]): string[] {
  const disks = { ...REQUEST.disks, variables: VARIABLES_CHAIN };
  return qemuArguments({ ...REQUEST, configuration: { ...UEFI, ...change }, disks }, 'tcg', {
    firmware: described,
  });
}

test('F8 firmware is named as it is described, its variables are a chain like any disk, and no device is made for them', () => {
  const args = uefiArguments({}, [SECURE, PLAIN]);
  assert.match(optionsOf(args, '-machine')[0]!, /,pflash0=firmware,pflash1=disk-variables$/);
  const nodes = optionsOf(args, '-blockdev').map((text) => JSON.parse(text));
  const byName = Object.fromEntries(nodes.map((node) => [node['node-name'], node]));
  assert.equal(byName.firmware.file.filename, '/f/CODE.fd');
  assert.equal(byName.firmware['read-only'], true);
  assert.equal(byName['disk-variables'].file.filename, '/d/vars-tip.qcow2');
  assert.equal(byName['disk-variables'].backing.driver, 'raw');
  assert.ok(!optionsOf(args, '-device').some((device) => device.includes('variables')));
  assert.deepEqual(optionsOf(args, '-global'), []);
});

test('F8 a machine with Secure Boot gets firmware with it, and flash that only the firmware writes', () => {
  const args = uefiArguments({ secureFirmware: true }, [PLAIN, SECURE]);
  assert.match(optionsOf(args, '-machine')[0]!, /,smm=on$/);
  assert.deepEqual(optionsOf(args, '-global'), ['driver=cfi.pflash01,property=secure,value=on']);
  assert.ok(args.some((arg) => arg.includes('/f/SECURE.fd')));
});

test('F8 where no firmware fits, the machine is not started, and it is said what is missing', () => {
  const older = { ...PLAIN, variablesBytes: 131_072 };
  const refused: [Partial<MachineConfiguration>, readonly Firmware[], RegExp][] = [
    [{}, [], /no UEFI firmware without Secure Boot for pc-q35-$/],
    [{}, [SECURE], /no UEFI firmware without Secure Boot/],
    [
      { secureFirmware: true, machineVersion: 'pc-i440fx-7.2' },
      [PLAIN, SECURE],
      /with Secure Boot for pc-i440fx-7.2/,
    ],
    [{}, [older], /have 540672 bytes, those of the firmware here 131072/],
    [{ disks: CONFIGURATION.disks }, [PLAIN], /variables are not among its disks/],
  ];
  for (const [change, described, message] of refused) {
    assert.throws(() => uefiArguments(change, described), { code: 'MACHINE_FIRMWARE_MISSING', message });
  }
});

test('F8 where an order of booting is said, it is what counts; a CD that is not here leaves its drive empty', () => {
  const medium = { path: '/iso/a.iso', sizeBytes: 2048, sha256: 'ab'.repeat(32) };
  const configuration: MachineConfiguration = {
    ...CONFIGURATION,
    nics: [{ ...CONFIGURATION.nics[0]!, bootIndex: 2 }],
    cds: [
      { cdId: 'cd0', bus: 'sata', bootIndex: 1, medium },
      { cdId: 'cd1', bus: 'virtio-scsi' },
    ],
  };
  const devices = (media: ReadonlySet<string>) => {
    const args = qemuArguments({ ...REQUEST, configuration }, 'tcg', { media });
    const drives = optionsOf(args, '-blockdev').map((text) => JSON.parse(text)['node-name']);
    return { drives, devices: optionsOf(args, '-device') };
  };
  const here = devices(new Set([medium.sha256]));
  assert.deepEqual(here.drives, ['disk-root', 'cd-cd0']);
  assert.ok(here.devices.includes('ide-cd,bus=ide.0,id=dev-cd0,drive=cd-cd0,bootindex=1'));
  assert.ok(here.devices.some((device) => device.startsWith('virtio-scsi-pci,id=scsi')));
  assert.ok(here.devices.includes('scsi-cd,bus=scsi.0,id=dev-cd1'));
  assert.ok(here.devices.some((device) => /^virtio-net-pci,.*,bootindex=2/.test(device)));
  assert.ok(
    here.devices.every((device) => !/^virtio-blk.*bootindex/.test(device)),
    'the disk is not tried',
  );
  const away = devices(new Set());
  assert.deepEqual(away.drives, ['disk-root']);
  assert.ok(away.devices.includes('ide-cd,bus=ide.0,id=dev-cd0,bootindex=1'));
  const usual = optionsOf(qemuArguments(REQUEST, 'tcg'), '-device');
  assert.ok(usual.some((device) => /^virtio-blk.*,bootindex=1/.test(device)));
});
