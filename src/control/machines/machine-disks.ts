import type { AddDiskRequest } from '../../api/index.ts';
import {
  FIRMWARE_VARIABLES_DEVICE,
  type ImageFile,
  type MachineConfiguration,
  type MachineDisk,
  placeOfNewDisk,
  type RunningMachine,
} from '../../hypervisor/index.ts';
import { messageOf } from '../../lib/errors.ts';
import { runCommand } from '../../lib/processes.ts';
import type { MachineRecord, NewDisk, ProtectedDisk } from '../../replication/index.ts';
import { controlFailure } from '../errors.ts';

/**
 * The disks of a machine that this site starts itself, checked: each disk of the configuration has one file, and the file
 * is what it is said to be. Throws MACHINE_DISK_UNSUITABLE. A file with a backing file is refused and not followed: its
 * header is not ours to trust.
 */
export async function managedDisks(
  configuration: MachineConfiguration,
  files: readonly { readonly diskId: string; readonly path: string; readonly format: 'qcow2' | 'raw' }[],
): Promise<ProtectedDisk[]> {
  const unknown = files.find(({ diskId }) => !configuration.disks.some((disk) => disk.diskId === diskId));
  if (unknown) throw unsuitable(`the configuration has no disk ${unknown.diskId}`, unknown.path);
  const disks: ProtectedDisk[] = [];
  for (const { diskId, bus, sizeBytes } of configuration.disks) {
    const [file, second] = files.filter((candidate) => candidate.diskId === diskId);
    if (!file || second) throw unsuitable(`disk ${diskId} needs exactly one file`, file?.path ?? '');
    const image: ImageFile = { path: file.path, format: file.format };
    const actualBytes = await virtualSize(image);
    if (actualBytes !== sizeBytes) {
      throw unsuitable(`${diskId} has ${actualBytes} bytes and not ${sizeBytes}`, file.path);
    }
    disks.push({ diskId, deviceName: deviceNameOf(diskId, bus), chain: [image], sizeBytes });
  }
  return disks;
}

/** A disk of a running machine as a protected one. Throws MACHINE_DISK_UNSUITABLE: half a machine is no copy. */
export function attachedDisk(disk: MachineDisk, diskId: string): ProtectedDisk {
  if (disk.unsupported) {
    throw controlFailure('MACHINE_DISK_UNSUITABLE', `${disk.deviceName}: ${disk.unsupported}`, {
      hint: 'Give the disk a writable qcow2 or raw file on a local file system.',
    });
  }
  const { deviceName, sizeBytes } = disk;
  return { diskId, deviceName, chain: disk.chain.map((image) => ({ ...image })), sizeBytes };
}

/**
 * The disk that a person means: of a running machine one that it has and that is not protected, by the name of its device or
 * as the only one; of one that this site starts and that is off, a file. Throws MACHINE_DISK_UNCLEAR, MACHINE_DISK_UNSUITABLE.
 */
export function newDisk(
  record: MachineRecord,
  running: RunningMachine | undefined,
  request: AddDiskRequest,
): Promise<NewDisk> {
  if (running) return pluggedDisk(record, running, request);
  if (record.kind === 'managed') return diskOfFile(record, request);
  throw controlFailure(
    'MACHINE_DISK_UNCLEAR',
    `${record.name} does not run and cannot be asked for its disks`,
    {
      hint: 'Start it with the new disk first: a machine that somebody else starts tells itself what it has.',
    },
  );
}

async function pluggedDisk(
  record: MachineRecord,
  running: RunningMachine,
  { diskId, device, file }: AddDiskRequest,
): Promise<NewDisk> {
  const { name, kind, disks } = record;
  const known = new Set(disks.map(({ deviceName }) => deviceName));
  const strangers = (await running.disks()).filter(({ deviceName }) => !known.has(deviceName));
  const meant = strangers.filter(
    ({ deviceName, chain }) =>
      (device === undefined || deviceName === device) &&
      (file === undefined || chain.at(-1)?.path === file.path),
  );
  const [found, second] = meant;
  if (!found || second) {
    const names = strangers.map(({ deviceName }) => deviceName).join(', ');
    const said = found ? `${name} has more than one disk that may be meant` : `${name} has no such disk`;
    throw controlFailure('MACHINE_DISK_UNCLEAR', `${said}; not protected are: ${names || 'none'}`, {
      context: { name, devices: names },
    });
  }
  const id = diskId ?? freeDiskId(record);
  const disk = attachedDisk(found, id);
  const { disks: described } = await running.configuration({ [found.deviceName]: id });
  const configuration = described[0]!;
  const nameAtStart = deviceNameOf(id, configuration.bus);
  if (kind === 'managed' && nameAtStart !== found.deviceName) {
    throw unsuitable(
      `${found.deviceName} will be ${nameAtStart} when this site starts the machine`,
      found.chain.at(-1)?.path ?? '',
      `Plug it in with the device id dev-${id}, or stop the machine and name its file: \`--disk ID=PATH\`.`,
    );
  }
  return { disk, configuration };
}

async function diskOfFile(
  record: MachineRecord,
  { diskId = freeDiskId(record), file, bus = busOfFirst(record) }: AddDiskRequest,
): Promise<NewDisk> {
  const { name } = record;
  if (!file) {
    throw controlFailure(
      'MACHINE_DISK_UNCLEAR',
      `${name} is off, and nothing says which file its new disk is`,
      {
        hint: 'Name it: `warmsite vm disk add VM --disk ID=PATH`.',
      },
    );
  }
  const sizeBytes = await virtualSize(file);
  const disk = { diskId, deviceName: deviceNameOf(diskId, bus), chain: [{ ...file }], sizeBytes };
  const pciPlace = placeOfNewDisk(record.configuration, bus);
  return { disk, configuration: { diskId, bus, sizeBytes, ...(pciPlace ? { pciPlace } : {}) } };
}

/** Of the disks that a guest has; flash memory is a part of the board. */
function busOfFirst({ configuration: { disks } }: MachineRecord): NonNullable<AddDiskRequest['bus']> {
  const [first = 'virtio-blk'] = disks.flatMap(({ bus }) => (bus === 'pflash' ? [] : [bus]));
  return first;
}

/** The ids of the disks of a machine that somebody else started: `disk0`, `disk1` …, and what they are for where that is known. */
export function idsOfAttached(disks: readonly MachineDisk[]): string[] {
  let number = 0;
  return disks.map(({ deviceName }) =>
    deviceName === FIRMWARE_VARIABLES_DEVICE ? 'firmware-variables' : `disk${number++}`,
  );
}

/** As disks are named that a person has not named: `disk0`, `disk1` … */
function freeDiskId({ disks, formerDisks = [] }: MachineRecord): string {
  const taken = new Set([...disks, ...formerDisks].map(({ diskId }) => diskId));
  for (let number = disks.length; ; number++) if (!taken.has(`disk${number}`)) return `disk${number}`;
}

/** What QEMU calls the device that our command line makes for a disk: `query-block`, member `qdev`. */
export function deviceNameOf(diskId: string, bus: MachineConfiguration['disks'][number]['bus']): string {
  if (bus === 'pflash') return FIRMWARE_VARIABLES_DEVICE;
  return bus === 'virtio-blk' ? `/machine/peripheral/dev-${diskId}/virtio-backend` : `dev-${diskId}`;
}

async function virtualSize(image: ImageFile): Promise<number> {
  let info: Readonly<Record<string, unknown>>;
  try {
    const args = ['info', '--force-share', '--output=json', '-f', image.format, image.path];
    info = JSON.parse((await runCommand('qemu-img', args)).stdout) as Record<string, unknown>;
  } catch (error) {
    throw unsuitable(`${image.path} is not a ${image.format} image: ${messageOf(error)}`, image.path);
  }
  if (info['backing-filename'] !== undefined) {
    throw unsuitable(
      `${image.path} has a backing file`,
      image.path,
      'Make it whole first: `qemu-img convert`.',
    );
  }
  const size = info['virtual-size'];
  if (typeof size === 'number' && Number.isSafeInteger(size)) return size;
  throw unsuitable(`the size of ${image.path} is not known`, image.path);
}

function unsuitable(said: string, path: string, hint?: string) {
  return controlFailure('MACHINE_DISK_UNSUITABLE', said, { context: { path }, ...(hint ? { hint } : {}) });
}
