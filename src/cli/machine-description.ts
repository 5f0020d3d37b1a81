import { dirname, extname, resolve } from 'node:path';
import { Value } from 'typebox/value';
import { type AddMachineRequest, type NicConnection, ROUTES } from '../api/index.ts';
import { messageOf } from '../lib/errors.ts';
import type { FileSystem } from '../lib/files.ts';
import { runCommand } from '../lib/processes.ts';
import type { Random } from '../lib/random.ts';
import { cliFailure } from './errors.ts';
import { readJsonFile } from './json-file.ts';
import { invalid } from './values.ts';

/** What `vm add` sends, from options or from a file. */

type ImageFormat = 'qcow2' | 'raw';

export interface DiskOption {
  readonly diskId: string;
  readonly path: string;
  readonly format: ImageFormat;
}

const ID_FORM = /^[a-z0-9][a-z0-9-]{0,23}$/;
const FORMAT_BY_NAME: Readonly<Record<string, ImageFormat>> = {
  '.qcow2': 'qcow2',
  '.raw': 'raw',
  '.img': 'raw',
};

/** `ID=PATH[:format]`. Without a format the file's name says it; the file's content is never asked. */
export function parseDiskId(text: string): string {
  if (ID_FORM.test(text)) return text;
  throw invalid(text, 'an id of at most 24 lower-case letters, digits and hyphens');
}

export function parseDisk(text: string): DiskOption {
  const [, diskId, rest] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (diskId === undefined || rest === undefined || !ID_FORM.test(diskId)) {
    throw invalid(text, 'ID=PATH[:format], such as root=/srv/images/web.qcow2 or data=/dev/vg0/web:raw');
  }
  return { diskId, ...parseImage(rest) };
}

function parseImage(text: string): Omit<DiskOption, 'diskId'> {
  const [, path, format] = /^(.*):(qcow2|raw)$/.exec(text) ?? [];
  if (path !== undefined && path !== '') return { path, format: format as ImageFormat };
  const byName = FORMAT_BY_NAME[extname(text)];
  if (byName) return { path: text, format: byName };
  throw invalid(text, 'a disk whose format is known: write PATH:qcow2 or PATH:raw');
}

/** `PATH[:format]`; firmware comes with its variables in raw files. */
export function parseFirmwareVariables(text: string): DiskOption {
  return { diskId: 'firmware-variables', ...parseImage(extname(text) === '.fd' ? `${text}:raw` : text) };
}

export interface CdOption {
  readonly cdId: string;
  /** Absent: the drive is empty. */
  readonly path?: string;
}

/** `ID[=PATH]`. */
export function parseCd(text: string): CdOption {
  const [, cdId, path] = /^([^=]+)(?:=(.+))?$/.exec(text) ?? [];
  if (cdId === undefined || !ID_FORM.test(cdId))
    throw invalid(text, 'ID[=PATH], such as cd0=/srv/iso/tools.iso');
  return { cdId, ...(path === undefined ? {} : { path }) };
}

/** `ID[,ID…]`: disks, CD drives and NICs, the first one first. */
export function parseBootOrder(text: string): readonly string[] {
  const ids = text.split(',');
  if (ids.every((id) => ID_FORM.test(id)) && new Set(ids).size === ids.length) return ids;
  throw invalid(text, 'ids of disks, CD drives and NICs, such as cd0,root');
}

const NIC_MODELS = ['virtio-net-pci', 'e1000', 'e1000e'] as const;

export interface NicOption {
  readonly nicId: string;
  readonly network: string;
  readonly model: (typeof NIC_MODELS)[number];
  /** Absent: a new one is made up. */
  readonly mac?: string;
}

/** `ID[=NETWORK][,mac=AA:BB:…][,model=MODEL]`. */
export function parseNic(text: string): NicOption {
  const [head = '', ...options] = text.split(',');
  const [nicId = '', network = ''] = head.split('=');
  const form = 'ID[=NETWORK][,mac=52:54:00:…][,model=virtio-net-pci], such as lan=br0';
  if (!ID_FORM.test(nicId)) throw invalid(text, form);
  let mac: string | undefined;
  let model: NicOption['model'] = 'virtio-net-pci';
  for (const option of options) {
    const [key, value = ''] = option.split('=');
    const known = NIC_MODELS.find((candidate) => candidate === value);
    if (key === 'mac' && /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(value)) mac = value.toLowerCase();
    else if (key === 'model' && known) model = known;
    else throw invalid(text, form);
  }
  return { nicId, network, model, ...(mac === undefined ? {} : { mac }) };
}

export interface MachineOptions {
  readonly name: string;
  readonly memory: number;
  readonly cpus: number;
  readonly disk: readonly DiskOption[];
  readonly nic?: readonly NicOption[];
  readonly cd?: readonly CdOption[];
  /** Ids in the order in which firmware tries them; absent: the disks in theirs. */
  readonly boot?: readonly string[];
  readonly bus: string;
  readonly chipset: string;
  readonly firmware: string;
  readonly firmwareVariables?: DiskOption;
  /** Where its TPM has its state. */
  readonly tpm?: string;
  readonly tpmModel?: string;
  readonly cpuModel?: string;
  readonly machineVersion?: string;
  readonly uuid?: string;
  readonly guestAgent: boolean;
  readonly qemuArgument?: readonly string[];
  readonly networks?: Readonly<Record<string, NicConnection>>;
}

/** The request for a machine that the site starts itself; the sizes of its disks are asked of `qemu-img`. */
export async function managedMachine(
  random: Random,
  o: MachineOptions,
  absolute: (path: string) => string,
): Promise<AddMachineRequest> {
  const { firmwareVariables: variables } = o;
  if ((o.firmware === 'uefi') !== (variables !== undefined)) {
    throw cliFailure(
      'CLI_USAGE',
      'a machine with --firmware uefi needs --firmware-variables, and no other has them',
      {
        hint: 'Copy the template of this host for it, such as /usr/share/OVMF/OVMF_VARS_4M.fd, and name the copy.',
      },
    );
  }
  const wanted = [...o.disk, ...(variables ? [variables] : [])];
  const disks = wanted.map((disk) => ({ ...disk, path: absolute(disk.path) }));
  const described: { diskId: string; bus: string; sizeBytes: number }[] = [];
  for (const disk of disks) {
    const bus = disk.diskId === variables?.diskId ? 'pflash' : o.bus;
    described.push({ diskId: disk.diskId, bus, sizeBytes: await virtualSize(disk) });
  }
  const cds = await Promise.all((o.cd ?? []).map((cd) => cdIn(cd, o.chipset, absolute)));
  const nics = (o.nic ?? []).map((nic) => ({ ...nic, mac: nic.mac ?? newMac(random) }));
  const turns = turnsOf(o.boot ?? [], [
    ...described.filter(({ bus }) => bus !== 'pflash').map(({ diskId }) => diskId),
    ...cds.map(({ cdId }) => cdId),
    ...nics.map(({ nicId }) => nicId),
  ]);
  const configuration = {
    name: o.name,
    uuid: o.uuid ?? newUuid(random),
    architecture: 'x86_64',
    chipset: o.chipset,
    ...(o.machineVersion === undefined ? {} : { machineVersion: o.machineVersion }),
    firmware: o.firmware,
    ...(o.tpm === undefined ? {} : { tpm: { model: o.tpmModel ?? 'tpm-crb' } }),
    ...(o.cpuModel === undefined ? {} : { cpuModel: o.cpuModel }),
    cpus: o.cpus,
    memoryBytes: o.memory,
    disks: described.map((disk) => ({ ...disk, ...turns(disk.diskId) })),
    nics: nics.map((nic) => ({ ...nic, ...turns(nic.nicId) })),
    ...(cds.length === 0 ? {} : { cds: cds.map((cd) => ({ ...cd, ...turns(cd.cdId) })) }),
    guestAgent: o.guestAgent,
  };
  return {
    ...{ configuration, disks },
    ...(o.tpm === undefined ? {} : { tpmDirectory: absolute(o.tpm) }),
    ...(o.qemuArgument ? { extraArguments: [...o.qemuArgument] } : {}),
    ...(o.networks ? { networks: { ...o.networks } } : {}),
  };
}

/** By id, the turn in which firmware tries a device. */
function turnsOf(
  order: readonly string[],
  known: readonly string[],
): (id: string) => { readonly bootIndex?: number } {
  const unknown = order.find((id) => !known.includes(id));
  if (unknown !== undefined) {
    throw cliFailure('CLI_USAGE', `--boot: the machine has no ${unknown}; it has ${known.join(', ')}`);
  }
  return (id) => (order.includes(id) ? { bootIndex: order.indexOf(id) + 1 } : {});
}

/** What lies in a drive is named by path and digest: it is not copied, and must be the same at the other site. */
async function cdIn({ cdId, path }: CdOption, chipset: string, absolute: (path: string) => string) {
  const drive = { cdId, bus: chipset === 'pc' ? 'ide' : 'sata' };
  if (path === undefined) return drive;
  const file = absolute(path);
  const size = await runCommand('stat', ['-L', '-c', '%s', '--', file], { allowExit: [1] });
  const digest = await runCommand('sha256sum', ['--', file], { allowExit: [1] });
  const sha256 = /^\\?([0-9a-f]{64}) /.exec(digest.stdout)?.[1];
  if (size.exitCode !== 0 || sha256 === undefined) {
    const said = `${file} cannot be read: ${(digest.stderr || size.stderr).trim()}`;
    throw cliFailure('CLI_FILE_INVALID', said, { context: { path: file } });
  }
  return { ...drive, medium: { path: file, sizeBytes: Number(size.stdout), sha256 } };
}

/** With its format given, `qemu-img info` reads one header and opens no other file. */
async function virtualSize({ path, format }: DiskOption): Promise<number> {
  const args = ['info', '--force-share', '--output=json', '-f', format, path];
  const { stdout, stderr, exitCode } = await runCommand('qemu-img', args, { allowExit: [1] });
  if (exitCode !== 0) throw unreadable(path, format, stderr.trim());
  let info: unknown;
  try {
    info = JSON.parse(stdout);
  } catch (error) {
    throw unreadable(path, format, messageOf(error));
  }
  const size = (info as Record<string, unknown> | null)?.['virtual-size'];
  if (typeof size === 'number' && Number.isSafeInteger(size)) return size;
  throw unreadable(path, format, 'its size is not known');
}

function unreadable(path: string, format: string, said: string) {
  return cliFailure('CLI_FILE_INVALID', `${path} is not a readable ${format} disk: ${said}`, {
    context: { path },
    hint: 'Name an existing disk file with its true format: --disk ID=PATH:qcow2 or ID=PATH:raw.',
  });
}

/** A random UUID (RFC 9562, version 4). */
function newUuid(random: Random): string {
  const bytes = random.bytes(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** In the range that QEMU's machines use: 52:54:00. */
function newMac(random: Random): string {
  return ['52', '54', '00', ...[...random.bytes(3)].map((byte) => byte.toString(16).padStart(2, '0'))].join(
    ':',
  );
}

/** The request that a file holds; paths in it are relative to the file. Throws CLI_FILE_INVALID. */
export async function machineFromFile(files: FileSystem, path: string): Promise<AddMachineRequest> {
  const request = withAbsolutePaths(await readJsonFile(files, path), dirname(path));
  if (Value.Check(ROUTES['vm.add'].body, request)) return request;
  throw cliFailure(
    'CLI_FILE_INVALID',
    `${path} does not describe a machine: it needs configuration and disks`,
    {
      context: { path },
    },
  );
}

function withAbsolutePaths(value: unknown, directory: string): unknown {
  if (typeof value !== 'object' || value === null || !('disks' in value) || !Array.isArray(value.disks))
    return value;
  const disks = value.disks.map((disk: unknown) => {
    const hasPath =
      typeof disk === 'object' && disk !== null && 'path' in disk && typeof disk.path === 'string';
    return hasPath ? { ...disk, path: resolve(directory, disk.path as string) } : disk;
  });
  return { ...value, disks };
}
