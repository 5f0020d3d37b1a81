import { isFailure } from '../../lib/errors.ts';
import type { QmpClient } from '../../qmp/index.ts';
import {
  checkMachineConfiguration,
  type DiskConfiguration,
  type MachineConfiguration,
  type NicConfiguration,
} from '../configuration.ts';
import type { MachineDisk, MachineIdentity } from '../hypervisor.ts';
import { FIRMWARE_VARIABLES_DEVICE } from './block-graph.ts';
import { type Bootable, bootSequence, cdsOf, inBootOrder } from './captured-boot.ts';
import { controllerPlaceOf, type Device, pciPlaceOf, rootPortsOf } from './pci-places.ts';

/**
 * What a QEMU that somebody else started tells about its machine, in platform-neutral words. Read through the
 * object model (`qom-list`, `qom-get`; QEMU docs/devel/qom), because command lines differ and this does not.
 */
export async function configurationOf(
  qmp: QmpClient,
  disks: readonly MachineDisk[],
  diskIds: Readonly<Record<string, string>>,
): Promise<MachineConfiguration> {
  const { uuid, name } = await identityOf(qmp);
  const cpus = await qmp.execute<{ 'qom-path': string }[]>('query-cpus-fast');
  const memory = await qmp.execute<{ 'base-memory': number }>('query-memory-size-summary');
  const machineType = String(await qmp.execute('qom-get', { path: '/machine', property: 'type' }));
  const machineVersion = machineType.replace(/-machine$/, '');
  const devices = await devicesOf(qmp);
  const rootPorts = await rootPortsOf(qmp, devices);
  const chipset = machineVersion.includes('q35') ? 'q35' : 'pc';
  const cds = await cdsOf(qmp, devices, chipset);
  const known = disks.filter((disk) => diskIds[disk.deviceName] !== undefined);
  const nics = await nicsOf(qmp, devices);
  const configuration = checkMachineConfiguration({
    name: (name ?? `vm-${uuid.slice(0, 8)}`).replace(/[^A-Za-z0-9._-]/g, '-').slice(0, 64),
    uuid,
    architecture: 'x86_64',
    chipset,
    machineVersion,
    ...(await firmwareOf(qmp)),
    ...(await tpmOf(qmp)),
    ...(await cpuModelOf(qmp, cpus[0]?.['qom-path'])),
    cpus: cpus.length,
    memoryBytes: memory['base-memory'],
    disks: await Promise.all(
      known.map(async (disk) => {
        const bus = busOf(devices, disk.deviceName, chipset);
        return {
          ...{ diskId: diskIds[disk.deviceName]!, bus, sizeBytes: disk.sizeBytes },
          ...(await serialOf(qmp, devices, disk.deviceName)),
          ...placed(await diskPlaceOf(qmp, devices, disk.deviceName, bus)),
        };
      }),
    ),
    ...(rootPorts.length > 0 ? { rootPorts } : {}),
    nics: nics.map(({ nic }) => nic),
    ...(cds.length > 0 ? { cds: cds.map(({ cd }) => cd) } : {}),
    guestAgent: await hasAgentPort(qmp, devices),
  });
  const bootable: Bootable[] = [];
  const add = async (kind: Bootable['kind'], id: string, path: string | undefined) => {
    const index = path === undefined ? undefined : await propertyOf(qmp, path, 'bootindex');
    bootable.push({ kind, id: `${kind} ${id}`, bootIndex: typeof index === 'number' ? index : -1 });
  };
  for (const { deviceName } of known) {
    const diskId = diskIds[deviceName]!;
    if (deviceName === FIRMWARE_VARIABLES_DEVICE) continue;
    await add('disk', diskId, deviceOf(devices, deviceName)?.path);
  }
  for (const { cd, path } of cds) await add('cd', cd.cdId, path);
  for (const { nic, path } of nics) await add('nic', nic.nicId, path);
  return inBootOrder(configuration, bootSequence(bootable, await bootOf(qmp)));
}

/** What `-boot` said; what a QEMU does not tell counts as not said. */
async function bootOf(qmp: QmpClient): Promise<{ order: string; strict: boolean }> {
  const boot = (await propertyOf(qmp, '/machine', 'boot')) as
    | { order?: unknown; strict?: unknown }
    | undefined;
  return { order: typeof boot?.order === 'string' ? boot.order : 'cad', strict: boot?.strict === true };
}

export async function identityOf(qmp: QmpClient): Promise<MachineIdentity> {
  const { UUID: uuid } = await qmp.execute<{ UUID: string }>('query-uuid');
  const { name } = await qmp.execute<{ name?: string }>('query-name');
  return { uuid: String(uuid).toLowerCase(), ...(name === undefined ? {} : { name }) };
}

async function devicesOf(qmp: QmpClient): Promise<Device[]> {
  const found: Device[] = [];
  for (const parent of ['/machine/peripheral', '/machine/peripheral-anon', '/machine/unattached']) {
    const children = await qmp.execute<{ name: string; type: string }[]>('qom-list', { path: parent });
    for (const child of children) {
      const type = /^child<(.*)>$/.exec(child.type)?.[1];
      if (type) found.push({ path: `${parent}/${child.name}`, type });
    }
  }
  return found;
}

async function tpmOf(qmp: QmpClient): Promise<Pick<MachineConfiguration, 'tpm'>> {
  const [tpm] = await qmp.execute<{ model: string }[]>('query-tpm');
  const model = (['tpm-tis', 'tpm-crb'] as const).find((known) => known === tpm?.model);
  return model === undefined ? {} : { tpm: { model } };
}

/** A CPU's type is its model's name and the architecture: «max-x86_64-cpu». Features set by hand are not told. */
async function cpuModelOf(qmp: QmpClient, path: string | undefined): Promise<{ cpuModel?: string }> {
  if (path === undefined) return {};
  const type = String(await qmp.execute('qom-get', { path, property: 'type' }));
  return { cpuModel: type.replace(/-x86_64-cpu$/, '') };
}

/** Guests find their disks by serial number, so that it belongs to what must be the same elsewhere. */
async function serialOf(
  qmp: QmpClient,
  devices: readonly Device[],
  deviceName: string,
): Promise<{ serial?: string }> {
  const path = deviceName.startsWith('/') ? deviceName : deviceOf(devices, deviceName)?.path;
  if (path === undefined || deviceName === FIRMWARE_VARIABLES_DEVICE) return {};
  const serial = String((await qmp.execute('qom-get', { path, property: 'serial' })) ?? '');
  return /^[A-Za-z0-9._-]{1,20}$/.test(serial) ? { serial } : {};
}

function deviceOf(devices: readonly Device[], deviceName: string): Device | undefined {
  // A qdev path may name the backend inside the PCI device: «/machine/peripheral/disk0/virtio-backend».
  return devices.find(
    ({ path }) => path === deviceName || deviceName.startsWith(`${path}/`) || path.endsWith(`/${deviceName}`),
  );
}

function busOf(
  devices: readonly Device[],
  deviceName: string,
  chipset: 'q35' | 'pc',
): DiskConfiguration['bus'] {
  const device = deviceOf(devices, deviceName);
  if (deviceName === FIRMWARE_VARIABLES_DEVICE) return 'pflash';
  if (device?.type.startsWith('virtio-blk') || deviceName.startsWith('virtio')) return 'virtio-blk';
  if (device?.type.startsWith('scsi')) return 'virtio-scsi';
  // The same device model; what it is plugged into came with the chipset.
  return chipset === 'q35' ? 'sata' : 'ide';
}

async function diskPlaceOf(
  qmp: QmpClient,
  devices: readonly Device[],
  deviceName: string,
  bus: DiskConfiguration['bus'],
): Promise<string | undefined> {
  const path = deviceOf(devices, deviceName)?.path;
  if (path === undefined) return undefined;
  if (bus === 'virtio-blk') return pciPlaceOf(qmp, devices, path);
  return bus === 'virtio-scsi' ? controllerPlaceOf(qmp, devices, path) : undefined;
}

function placed(pciPlace: string | undefined): { pciPlace?: string } {
  return pciPlace === undefined ? {} : { pciPlace };
}

const NIC_MODELS = ['virtio-net-pci', 'e1000e', 'e1000'] as const;

async function nicsOf(
  qmp: QmpClient,
  devices: readonly Device[],
): Promise<{ readonly nic: NicConfiguration; readonly path: string }[]> {
  const nics: { nic: NicConfiguration; path: string }[] = [];
  for (const { path, type } of devices) {
    const model = NIC_MODELS.find((candidate) => type === candidate || type.startsWith(`${candidate}-`));
    if (!model) continue;
    const mac = String(await qmp.execute('qom-get', { path, property: 'mac' })).toLowerCase();
    const place = placed(await pciPlaceOf(qmp, devices, path));
    nics.push({ nic: { nicId: `nic${nics.length}`, model, mac, network: 'default', ...place }, path });
  }
  return nics;
}

async function hasAgentPort(qmp: QmpClient, devices: readonly Device[]): Promise<boolean> {
  for (const { path, type } of devices) {
    if (type !== 'virtserialport') continue;
    if ((await qmp.execute('qom-get', { path, property: 'name' })) === 'org.qemu.guest_agent.0') return true;
  }
  return false;
}

/**
 * PC machines take UEFI from a flash device whose backend is the property «pflash0»; one that was given as a BIOS (`-bios`) is told by
 * the name of its file alone, and keeps no variables.
 */
async function firmwareOf(
  qmp: QmpClient,
): Promise<Pick<MachineConfiguration, 'firmware' | 'secureFirmware'>> {
  const hasFlash = Boolean(await propertyOf(qmp, '/machine', 'pflash0'));
  const file = String((await propertyOf(qmp, '/machine', 'firmware')) ?? '');
  if (!hasFlash && !/ovmf|edk2/i.test(file)) return { firmware: 'bios' };
  const isSecure = (await propertyOf(qmp, FIRMWARE_VARIABLES_DEVICE, 'secure')) === true;
  return { firmware: 'uefi', ...(isSecure ? { secureFirmware: true } : {}) };
}

/** Undefined where there is no such thing. */
async function propertyOf(qmp: QmpClient, path: string, property: string): Promise<unknown> {
  try {
    return await qmp.execute('qom-get', { path, property });
  } catch (error) {
    if (isFailure(error, 'QMP_COMMAND_FAILED')) return undefined;
    throw error;
  }
}
