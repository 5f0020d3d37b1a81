/** What is told about machines that somebody else started, and that the same can be started from it. Nothing boots. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startLabMachine } from '../../../lab/index.ts';
import { attachedRecord } from '../../../src/control/machines/new-machine.ts';
import {
  endRun,
  firmwareVariables,
  type MachineConfiguration,
  QemuHypervisor,
  type RunningMachine,
  startFindings,
} from '../../../src/hypervisor/index.ts';
import { describedFirmware } from '../../../src/hypervisor/qemu/firmware-descriptors.ts';
import { systemClock as clock } from '../../../src/lib/clock.ts';
import { runCommand } from '../../../src/lib/processes.ts';
import { socketListens, startedProcess } from '../../support/started.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const hypervisor = new QemuHypervisor({ clock });
const MIB = 1024 * 1024;
const UUID = '11111111-2222-4333-8444-555555555555';

async function image(directory: string, name: string, sizeBytes: number): Promise<string> {
  const path = join(directory, name);
  await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(sizeBytes)]);
  return path;
}

async function attached(t: TestContext, directory: string, extraArgs: string[]): Promise<RunningMachine> {
  const lab = await startLabMachine({ directory, disks: [], extraArgs });
  t.after(() => lab.stop());
  const running = await hypervisor.attach({ qmpPath: lab.qmpPath, agentPath: lab.agentPath });
  t.after(() => running.disconnect());
  return running;
}

async function configurationOf(running: RunningMachine): Promise<MachineConfiguration> {
  const disks = await running.disks();
  return running.configuration(
    Object.fromEntries(disks.map(({ deviceName }, index) => [deviceName, `disk${index}`])),
  );
}

test('S0.1 disks of every bus, NICs and processor are told, and the machine started from that is the same', async (t) => {
  const directory = await temporaryDirectory(t);
  const paths = await Promise.all(
    [1, 2, 3].map((mib) => image(directory, `${mib}.qcow2`, mib * 1024 * 1024)),
  );
  const node = (index: number) =>
    JSON.stringify({
      driver: 'qcow2',
      'node-name': `n${index}`,
      file: { driver: 'file', filename: paths[index] },
    });
  const running = await attached(t, directory, [
    ...['-uuid', UUID, '-smp', '2', '-cpu', 'Nehalem'],
    ...['-blockdev', node(0), '-device', 'virtio-blk-pci,drive=n0,id=root,serial=ROOT-1'],
    ...[
      '-device',
      'virtio-scsi-pci',
      '-blockdev',
      node(1),
      '-device',
      'scsi-hd,drive=n1,id=store,serial=STORE-2',
    ],
    ...['-blockdev', node(2), '-device', 'ide-hd,drive=n2,id=old'],
    ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,mac=52:54:00:12:34:56,romfile='],
    ...['-netdev', 'hubport,id=h,hubid=0', '-device', 'e1000,netdev=h,mac=52:54:00:12:34:57,romfile='],
  ]);
  const told = await configurationOf(running);
  const net = { network: 'default' };
  assert.deepEqual(
    { ...told, machineVersion: undefined },
    {
      ...{
        name: 'lab',
        uuid: UUID,
        architecture: 'x86_64',
        chipset: 'q35',
        machineVersion: undefined,
        firmware: 'bios',
      },
      ...{ cpuModel: 'Nehalem', cpus: 2, memoryBytes: 256 * 1024 * 1024, guestAgent: true },
      disks: [
        { diskId: 'disk0', bus: 'virtio-blk', sizeBytes: MIB, serial: 'ROOT-1', pciPlace: '03.0' },
        { diskId: 'disk1', bus: 'virtio-scsi', sizeBytes: 2 * MIB, serial: 'STORE-2', pciPlace: '04.0' },
        // QEMU gives a serial number of its own to IDE disks without one; guests know them by it.
        { diskId: 'disk2', bus: 'sata', sizeBytes: 3 * MIB, serial: told.disks[2]!.serial! },
      ],
      nics: [
        { ...{ nicId: 'nic0', model: 'virtio-net-pci' }, mac: '52:54:00:12:34:56', ...net, pciPlace: '05.0' },
        { ...{ nicId: 'nic1', model: 'e1000' }, mac: '52:54:00:12:34:57', ...net, pciPlace: '06.0' },
      ],
    },
  );
  assert.match(told.disks[2]!.serial!, /^QM/);
  assert.match(told.machineVersion!, /^pc-q35-\d/);

  const runDirectory = join(directory, 'run');
  await mkdir(runDirectory);
  t.after(() => endRun(runDirectory, clock));
  const copies = await Promise.all(
    told.disks.map(({ diskId, sizeBytes }) => image(directory, `${diskId}.copy`, sizeBytes)),
  );
  const disks = Object.fromEntries(
    told.disks.map(({ diskId }, index) => [diskId, [{ path: copies[index]!, format: 'qcow2' as const }]]),
  );
  await using twin = await hypervisor.start({ configuration: told, disks, runDirectory, paused: true });
  assert.deepEqual(await configurationOf(twin), told);
});

test('F4 a guest whose machine was started paused has not begun before it is continued, and has when it is paused again', async (t) => {
  const directory = await temporaryDirectory(t);
  const disk = { path: await image(directory, 'disk.qcow2', MIB), format: 'qcow2' as const };
  const configuration: MachineConfiguration = {
    ...{ name: 'lab', uuid: UUID, architecture: 'x86_64', chipset: 'q35', firmware: 'bios', cpus: 1 },
    ...{ memoryBytes: 64 * MIB, guestAgent: false, nics: [] },
    disks: [{ diskId: 'disk0', bus: 'virtio-blk', sizeBytes: MIB }],
  };
  const runDirectory = join(directory, 'run');
  await mkdir(runDirectory);
  t.after(() => endRun(runDirectory, clock));
  const request = { configuration, disks: { disk0: [disk] }, runDirectory, paused: true };
  await using running = await hypervisor.start(request);
  assert.deepEqual([await running.state(), await running.hasBegun()], ['paused', false]);
  await running.resume();
  assert.equal(await running.hasBegun(), true);
  await running.pause();
  assert.deepEqual([await running.state(), await running.hasBegun()], ['paused', true]);
});

test('CD-ROM, empty and read-only drives are no disks; what cannot be cut is said to be so', async (t) => {
  const directory = await temporaryDirectory(t);
  const disk = await image(directory, 'disk.qcow2', 1024 * 1024);
  const running = await attached(t, directory, [
    ...[
      '-drive',
      `if=none,id=cd,media=cdrom,readonly=on,format=raw,file=${disk}`,
      '-device',
      'ide-cd,drive=cd',
    ],
    ...[
      '-drive',
      `if=none,id=ro,readonly=on,format=qcow2,file=${disk}`,
      '-device',
      'virtio-blk-pci,drive=ro',
    ],
    ...['-device', 'virtio-scsi-pci', '-device', 'scsi-cd'],
    ...[
      '-blockdev',
      'driver=null-co,node-name=nothing,size=1048576,read-zeroes=on',
      '-device',
      'virtio-blk-pci,drive=nothing,id=odd',
    ],
  ]);
  const disks = await running.disks();
  assert.equal(disks.length, 1);
  assert.match(disks[0]!.deviceName, /odd/);
  assert.match(disks[0]!.unsupported!, /neither a qcow2 nor a raw file/);
  await assert.rejects(
    running.cut([
      { deviceName: disks[0]!.deviceName, overlay: { path: join(directory, 'x'), format: 'qcow2' } },
    ]),
    { code: 'DISK_UNSUPPORTED' },
  );
});

test('a machine of the older chipset is told as such', async (t) => {
  const directory = await temporaryDirectory(t);
  const disk = await image(directory, 'disk.qcow2', 1024 * 1024);
  const running = await attached(t, directory, [
    '-machine',
    'pc',
    '-drive',
    `if=ide,format=qcow2,file=${disk}`,
  ]);
  const { chipset, machineVersion, disks } = await configurationOf(running);
  assert.equal(chipset, 'pc');
  assert.match(machineVersion!, /^pc-i440fx-/);
  assert.equal(disks[0]!.bus, 'ide');
});

test('F8 UEFI is told with its variables and whether it is secure, and the machine started from that is the same', async (t) => {
  const directory = await temporaryDirectory(t);
  const described = await describedFirmware();
  const secure = described.find(({ features }) => features.includes('requires-smm'));
  assert.ok(secure, 'UEFI firmware with Secure Boot is installed here');
  const variables = join(directory, 'variables.fd');
  await copyFile(secure.template.path, variables);
  const flash = [
    ...['-machine', 'smm=on', '-global', 'driver=cfi.pflash01,property=secure,value=on'],
    ...['-drive', `if=pflash,unit=0,format=raw,readonly=on,file=${secure.code.path}`],
    ...['-drive', `if=pflash,unit=1,format=raw,file=${variables}`],
  ];
  const running = await attached(t, directory, flash);
  const told = await configurationOf(running);
  assert.equal(told.firmware, 'uefi');
  assert.equal(told.secureFirmware, true);
  assert.deepEqual(told.disks, [{ diskId: 'disk0', bus: 'pflash', sizeBytes: secure.variablesBytes }]);
  const runDirectory = join(directory, 'run');
  await mkdir(runDirectory);
  t.after(() => endRun(runDirectory, clock));
  const copy = join(directory, 'copy.fd');
  await copyFile(secure.template.path, copy);
  const disks = { disk0: [{ path: copy, format: 'raw' as const }] };
  await using twin = await hypervisor.start({ configuration: told, disks, runDirectory, paused: true });
  assert.deepEqual(await configurationOf(twin), told);
});

test('F8 UEFI that was given as a BIOS is told as UEFI, and has no variables to keep', async (t) => {
  const directory = await temporaryDirectory(t);
  const disk = await image(directory, 'disk.qcow2', MIB);
  const bios = '/usr/share/ovmf/OVMF.fd';
  const drive = ['-drive', `if=virtio,format=qcow2,file=${disk}`];
  const told = await configurationOf(await attached(t, directory, ['-bios', bios, ...drive]));
  assert.equal(told.firmware, 'uefi');
  assert.equal(firmwareVariables(told), undefined);
  const [finding] = startFindings(told, await hypervisor.offer());
  assert.equal(finding?.code, 'MACHINE_FIRMWARE_MISSING');
  assert.match(finding.found, /not among its disks/);
});

test('F8 flash that holds code and variables in one file cannot be cut, and is said to be so', async (t) => {
  const directory = await temporaryDirectory(t);
  const [plain] = (await describedFirmware()).filter(({ features }) => !features.includes('requires-smm'));
  const whole = join(directory, 'whole.fd');
  await copyFile(plain!.code.path, whole);
  const running = await attached(t, directory, ['-drive', `if=pflash,unit=0,format=raw,file=${whole}`]);
  const [disk] = await running.disks();
  assert.match(disk!.unsupported!, /code of the firmware besides its variables/);
});

test('F8 CD drives with what lies in them, and the order of booting, are told, and the machine started from that is the same', async (t) => {
  const directory = await temporaryDirectory(t);
  const [one, two] = [await image(directory, '1.qcow2', MIB), await image(directory, '2.qcow2', MIB)];
  const iso = join(directory, 'live.iso');
  await writeFile(iso, Buffer.alloc(65_536, 7));
  const running = await attached(t, directory, [
    ...['-boot', 'strict=on', '-device', 'virtio-scsi-pci', '-device', 'scsi-cd,id=empty'],
    ...['-drive', `if=none,id=live,media=cdrom,readonly=on,format=raw,file=${iso}`],
    ...['-device', 'ide-cd,drive=live,bootindex=3'],
    ...['-drive', `if=none,id=a,format=qcow2,file=${one}`, '-device', 'virtio-blk-pci,drive=a'],
    ...['-drive', `if=none,id=b,format=qcow2,file=${two}`, '-device', 'ide-hd,drive=b,bus=ide.1,bootindex=8'],
    ...['-netdev', 'hubport,id=h,hubid=0'],
    ...['-device', 'e1000,netdev=h,mac=52:54:00:12:34:57,romfile=,bootindex=0'],
  ]);
  const told = await configurationOf(running);
  const sha256 = createHash('sha256')
    .update(await readFile(iso))
    .digest('hex');
  const medium = { path: iso, sizeBytes: 65_536, sha256 };
  const byBus = Object.fromEntries(told.cds!.map((cd) => [cd.bus, cd]));
  assert.deepEqual([byBus.sata?.medium, byBus.sata?.bootIndex], [medium, 2]);
  assert.equal(byBus['virtio-scsi']?.medium, undefined);
  assert.deepEqual(told.disks.map(({ bus, bootIndex }) => [bus, bootIndex]).sort(), [
    ['sata', 3],
    ['virtio-blk', undefined],
  ]);
  assert.equal(told.nics[0]?.bootIndex, 1);
  assert.deepEqual([...(await hypervisor.offer([medium])).media], [sha256]);

  const chains = Object.fromEntries(
    await Promise.all(
      told.disks.map(async ({ diskId }) => {
        const path = await image(directory, `${diskId}.copy`, MIB);
        return [diskId, [{ path, format: 'qcow2' as const }]];
      }),
    ),
  );
  const again = async (name: string) => {
    const runDirectory = join(directory, name);
    await mkdir(runDirectory);
    t.after(() => endRun(runDirectory, clock));
    await using twin = await hypervisor.start({
      configuration: told,
      disks: chains,
      runDirectory,
      paused: true,
    });
    const seen = await configurationOf(twin);
    await twin.quit();
    return seen;
  };
  const same = await again('same');
  const drives = ({ cds, disks, nics }: MachineConfiguration) => ({
    cds: cds!
      .map(({ bus, medium: lies, bootIndex }) => ({ bus, lies, bootIndex }))
      .sort((a) => (a.lies ? -1 : 1)),
    turns: [...disks, ...nics].map(({ bootIndex }) => bootIndex),
  });
  assert.deepEqual(drives(same), drives(told));
  await writeFile(iso, Buffer.alloc(65_536, 8));
  assert.equal((await hypervisor.offer([medium])).media.size, 0, 'another file of the same name and size');
  const without = await again('without');
  assert.deepEqual(
    without.cds!.map((cd) => cd.medium),
    [undefined, undefined],
    'its drive is there, and empty',
  );
});

test('F8 a TPM is told by its model, and its machine is taken in only with the directory of its state', async (t) => {
  const directory = await temporaryDirectory(t);
  const socket = join(directory, 'swtpm');
  const state = join(directory, 'state');
  await mkdir(state);
  const control = ['--ctrl', `type=unixio,path=${socket}`, '--terminate'];
  await startedProcess(t, 'swtpm', ['socket', '--tpm2', '--tpmstate', `dir=${state}`, ...control]);
  await socketListens(socket);
  const disk = await image(directory, 'disk.qcow2', MIB);
  const running = await attached(t, directory, [
    ...['-chardev', `socket,id=tpm,path=${socket}`, '-tpmdev', 'emulator,id=tpm0,chardev=tpm'],
    ...['-device', 'tpm-tis,tpmdev=tpm0', '-drive', `if=virtio,format=qcow2,file=${disk}`],
  ]);
  assert.deepEqual((await configurationOf(running)).tpm, { model: 'tpm-tis' });
  await running.disconnect();
  const about = { machineId: 'm', createdAtMs: 0 };
  const { qmpPath } = running.sockets;
  await assert.rejects(attachedRecord(hypervisor, about, { qmpPath }), { code: 'MACHINE_TPM_UNCLEAR' });
  const record = await attachedRecord(hypervisor, about, { qmpPath, tpmDirectory: state });
  assert.deepEqual(record.tpm, { directory: state });
});

test('F8 a descriptor of the administrator takes the place of its namesake, an empty one hides it', async (t) => {
  const directory = await temporaryDirectory(t);
  const [packaged, own] = [join(directory, 'packaged'), join(directory, 'own')];
  for (const path of [packaged, own]) await mkdir(path);
  const describe = (code: string) =>
    JSON.stringify({
      'interface-types': ['uefi'],
      mapping: {
        device: 'flash',
        executable: { filename: code, format: 'raw' },
        'nvram-template': { filename: join(directory, 'template'), format: 'raw' },
      },
      targets: [{ architecture: 'x86_64', machines: ['pc-q35-*'] }],
      features: [],
    });
  for (const name of ['template', 'code', 'other']) await writeFile(join(directory, name), 'x'.repeat(4096));
  await writeFile(join(packaged, '10.json'), describe(join(directory, 'code')));
  await writeFile(join(packaged, '20.json'), describe(join(directory, 'code')));
  await writeFile(join(packaged, '30.json'), describe(join(directory, 'gone')));
  await writeFile(join(own, '10.json'), '');
  await writeFile(join(own, '20.json'), describe(join(directory, 'other')));
  const found = await describedFirmware([packaged, own, join(directory, 'nowhere')]);
  assert.deepEqual(
    found.map(({ descriptor, code, variablesBytes }) => [descriptor, code.path, variablesBytes]),
    [[join(own, '20.json'), join(directory, 'other'), 4096]],
  );
  await writeFile(join(own, '30.json'), '{');
  // What is no descriptor hinders no other.
  assert.deepEqual(await describedFirmware([packaged, own]), found);
});
