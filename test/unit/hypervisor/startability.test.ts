/** What a machine would find at a host, as a table. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Firmware,
  type HostOffer,
  type MachineConfiguration,
  startFindings,
} from '../../../src/hypervisor/index.ts';

const GIB = 2 ** 30;
const FIRMWARE: Firmware = {
  descriptor: '/usr/share/qemu/firmware/60.json',
  code: { path: '/f/CODE.fd', format: 'raw' },
  template: { path: '/f/VARS.fd', format: 'raw' },
  variablesBytes: 540_672,
  machines: ['pc-q35-*'],
  features: [],
};
const OFFER: HostOffer = {
  accelerator: 'kvm',
  machineTypes: new Map([
    ['pc-q35-7.2', { cpusMax: 288 }],
    ['q35', { cpusMax: 288 }],
    ['pc', { cpusMax: 255 }],
  ]),
  cpuModels: new Map([
    ['host', { missingFeatures: [] }],
    ['Nehalem', { missingFeatures: [] }],
    ['EPYC', { missingFeatures: ['sha-ni', 'clzero'] }],
  ]),
  firmware: [FIRMWARE],
  hasTpm: true,
  media: new Set(),
  memoryBytes: 8 * GIB,
};
const MACHINE: MachineConfiguration = {
  ...{ name: 'web', uuid: '6a1c5a5e-0000-4000-8000-00000000000c', architecture: 'x86_64', chipset: 'q35' },
  ...{ machineVersion: 'pc-q35-7.2', firmware: 'uefi', cpuModel: 'Nehalem', cpus: 2 },
  ...{ memoryBytes: 8 * GIB, guestAgent: true, nics: [] },
  disks: [
    { diskId: 'root', bus: 'virtio-blk', sizeBytes: 1024 * 1024 },
    { diskId: 'variables', bus: 'pflash', sizeBytes: 540_672 },
  ],
};

function turned(bootIndex: number): Partial<MachineConfiguration> {
  return { disks: MACHINE.disks.map((disk) => (disk.bus === 'pflash' ? disk : { ...disk, bootIndex })) };
}

test('F8 a machine for which everything is there has nothing against it', () => {
  assert.deepEqual(startFindings(MACHINE, OFFER), []);
  const { machineVersion: _version, cpuModel: _model, ...plain } = MACHINE;
  assert.deepEqual(startFindings({ ...plain, firmware: 'bios', disks: [MACHINE.disks[0]] }, OFFER), []);
  assert.deepEqual(startFindings({ ...MACHINE, cpuModel: 'Nehalem,+vmx' }, OFFER), []);
});

test('F8 each thing that is missing is told by itself, with its code and what to do', () => {
  const told: [string, object, Partial<HostOffer>, string, boolean, RegExp][] = [
    [
      'type',
      { machineVersion: 'pc-q35-9.2' },
      {},
      'MACHINE_TYPE_MISSING',
      true,
      /no machine type pc-q35-9.2/,
    ],
    ['processors', { cpus: 300 }, {}, 'MACHINE_TYPE_MISSING', true, /300 processors, and .* takes 288/],
    ['model', { cpuModel: 'GraniteRapids' }, {}, 'MACHINE_CPU_MISSING', true, /GraniteRapids/],
    ['features', { cpuModel: 'EPYC' }, {}, 'MACHINE_CPU_DIFFERS', false, /no sha-ni, clzero here/],
    ['host', { cpuModel: 'host' }, { accelerator: 'tcg' }, 'MACHINE_CPU_DIFFERS', false, /translated/],
    ['firmware', {}, { firmware: [] }, 'MACHINE_FIRMWARE_MISSING', true, /describes no UEFI firmware/],
    ['TPM', { tpm: { model: 'tpm-crb' } }, { hasTpm: false }, 'MACHINE_TPM_MISSING', true, /swtpm/],
    ['memory', { memoryBytes: 9 * GIB }, {}, 'MACHINE_MEMORY_SHORT', true, /9216 MiB .* 8192 MiB/],
    ['description', { cpus: 0 }, {}, 'MACHINE_CONFIGURATION_INVALID', true, /cpus/],
  ];
  for (const [what, change, offer, code, prevents, found] of told) {
    const [finding, ...others] = startFindings({ ...MACHINE, ...change }, { ...OFFER, ...offer });
    assert.deepEqual(others, [], what);
    assert.equal(finding?.code, code, what);
    assert.equal(finding.prevents, prevents, what);
    assert.match(finding.found, found);
    assert.match(finding.remedy, /\.$/);
  }
  const medium = { path: '/iso/live.iso', sizeBytes: 1, sha256: 'ab'.repeat(32) };
  const cd = { cdId: 'cd0', bus: 'sata' as const, medium };
  const missing: [string, object, boolean, RegExp][] = [
    ['in a drive', { cds: [cd] }, false, /live\.iso .* its drive would be empty/],
    ['tried before a disk', { ...turned(2), cds: [{ ...cd, bootIndex: 1 }] }, false, /would be empty/],
    ['booted from alone', { cds: [{ ...cd, bootIndex: 1 }] }, true, /boots from that alone/],
  ];
  for (const [what, change, prevents, found] of missing) {
    const [finding] = startFindings({ ...MACHINE, ...change }, OFFER);
    assert.deepEqual([finding?.code, finding?.prevents], ['MACHINE_CD_MISSING', prevents], what);
    assert.match(finding!.found, found);
    assert.deepEqual(
      startFindings({ ...MACHINE, ...change }, { ...OFFER, media: new Set([medium.sha256]) }),
      [],
    );
  }
  const all = startFindings({ ...MACHINE, machineVersion: 'x', cpuModel: 'y' }, { ...OFFER, firmware: [] });
  assert.equal(all.length, 3, 'one does not hide another');
});
