import { join } from 'node:path';
import { ownOf } from '../../lib/own.ts';
import {
  type CdConfiguration,
  type DiskConfiguration,
  firmwareVariables,
  type MachineConfiguration,
  type NicConfiguration,
} from '../configuration.ts';
import { hypervisorFailure } from '../errors.ts';
import { type Firmware, firmwareFor } from '../firmware.ts';
import type { MachineSockets, NetworkAttachment, StartRequest } from '../hypervisor.ts';
import { chainOptions } from './chain-options.ts';
import { type PciPlan, pciPlanOf } from './pci-plan.ts';

/** Where a machine of ours keeps its sockets and logs inside its run directory. */
export function runPaths(runDirectory: string) {
  return {
    qmpPath: join(runDirectory, 'qmp'),
    guardPath: join(runDirectory, 'guard'),
    leasePath: join(runDirectory, 'lease'),
    leaseMarkPath: join(runDirectory, 'lease-over'),
    agentPath: join(runDirectory, 'qga'),
    tpmPath: join(runDirectory, 'tpm'),
    tpmPidPath: join(runDirectory, 'tpm.pid'),
    tpmLogPath: join(runDirectory, 'tpm.log'),
    vncPath: join(runDirectory, 'vnc'),
    serialPath: join(runDirectory, 'serial.log'),
    pidPath: join(runDirectory, 'pid'),
    logPath: join(runDirectory, 'qemu.log'),
  };
}

export function socketsOf(request: StartRequest): MachineSockets {
  const paths = runPaths(request.runDirectory);
  return {
    qmpPath: paths.qmpPath,
    ...(request.configuration.guestAgent ? { agentPath: paths.agentPath } : {}),
  };
}

/** What of this host a machine may need besides its own files. */
export interface HostFiles {
  readonly firmware?: readonly Firmware[];
  /** Digests of media of CD drives that are here. */
  readonly media?: ReadonlySet<string>;
}

/**
 * The arguments of `qemu-system-x86_64` for a start request. Pure, so that a table of examples tests it.
 * Everything is named: no defaults of the binary, no user configuration, no probed formats.
 */
export function qemuArguments(
  request: StartRequest,
  accelerator: 'kvm' | 'tcg',
  { firmware = [], media = new Set() }: HostFiles = {},
): string[] {
  const { configuration } = request;
  const flash = flashArguments(configuration, firmware);
  const paths = runPaths(request.runDirectory);
  const plan = pciPlanOf(configuration);
  const machine = configuration.machineVersion ?? configuration.chipset;
  const args = [
    ['-nodefaults', '-no-user-config'],
    ['-name', `guest=${configuration.name},process=warmsite-${configuration.name}`],
    ['-uuid', configuration.uuid],
    ['-machine', `${machine},accel=${accelerator},usb=off${flash.machineOptions}`],
    flash.arguments,
    ['-cpu', cpuModel(configuration.cpuModel, accelerator)],
    ['-smp', String(configuration.cpus)],
    ['-m', `size=${Math.ceil(configuration.memoryBytes / 1024 / 1024)}M`],
    ['-display', 'none', ...vga(plan)],
    ['-vnc', `unix:${paths.vncPath}`],
    ['-rtc', 'base=utc', '-boot', 'strict=on'],
    // -daemonize itself needs setsid and fork, so that denying these would kill QEMU at its start.
    ['-sandbox', 'on,obsolete=deny,resourcecontrol=deny'],
    ['-chardev', monitorOption(request.runDirectory), '-mon', 'chardev=qmp,mode=control'],
    // QEMU serves one client a monitor: whoever guards a lease must be heard while the site holds the first one.
    [
      '-chardev',
      `socket,id=guard,path=${paths.guardPath},server=on,wait=off`,
      '-mon',
      'chardev=guard,mode=control',
    ],
    ['-chardev', `file,id=serial,path=${paths.serialPath}`, '-serial', 'chardev:serial'],
    plan.ports,
    ['-device', `virtio-serial-pci,id=ports${plan.at('ports')}`],
    configuration.guestAgent ? agentPort(paths.agentPath) : [],
    configuration.tpm ? tpmDevice(configuration.tpm.model, paths.tpmPath) : [],
    ...configuration.disks.map((disk, index) => diskArguments(request, disk, index, plan)),
    ...(configuration.cds ?? []).map((cd) => cdArguments(configuration, cd, media, plan)),
    ...configuration.nics.map((nic) =>
      nicArguments(configuration, nic, ownOf(request.networks ?? {}, nic.nicId), plan),
    ),
    request.paused ? ['-S'] : [],
    [...(request.extraArguments ?? [])],
    ['-pidfile', paths.pidPath, '-daemonize', '-D', paths.logPath],
  ];
  return args.flat();
}

/** UEFI runs from flash memory, and so its code is given as a disk is; what holds the variables is one. */
function flashArguments(
  configuration: MachineConfiguration,
  described: readonly Firmware[],
): { readonly machineOptions: string; readonly arguments: string[] } {
  const variables = firmwareVariables(configuration);
  if (configuration.firmware === 'bios') return { machineOptions: '', arguments: [] };
  const chosen = firmwareFor(configuration, described);
  if ('reason' in chosen || !variables) {
    // Started by a BIOS its disks would not boot: better said than found out.
    const said = 'reason' in chosen ? `: ${chosen.reason}` : '';
    throw hypervisorFailure('MACHINE_FIRMWARE_MISSING', `${configuration.name} needs UEFI firmware${said}`, {
      context: { machine: configuration.name },
    });
  }
  const code = {
    ...{ 'node-name': FIRMWARE_NODE, driver: chosen.firmware.code.format, 'read-only': true },
    file: { driver: 'file', filename: chosen.firmware.code.path },
  };
  const isSecure = configuration.secureFirmware === true;
  return {
    machineOptions: `,pflash0=${FIRMWARE_NODE},pflash1=${diskNode(variables.diskId)}${isSecure ? ',smm=on' : ''}`,
    arguments: [
      ...['-blockdev', JSON.stringify(code)],
      // Only the firmware itself, in its own mode of the processor, may write to the flash then.
      ...(isSecure ? ['-global', 'driver=cfi.pflash01,property=secure,value=on'] : []),
    ],
  };
}

const FIRMWARE_NODE = 'firmware';

function diskNode(diskId: string): string {
  return `disk-${diskId}`.slice(0, 31);
}

/**
 * «host» is what this host's processor is, and only KVM can be that; «max» is the most that either can be. Without page
 * tables of five levels: a guest with less than 64 TiB has no use for them, and translated code walks one level less (a
 * boot of the lab guest took 4.3 s of processor time in the place of 5.8).
 */
function cpuModel(wanted: string | undefined, accelerator: 'kvm' | 'tcg'): string {
  if (accelerator === 'kvm') return wanted ?? 'host';
  return wanted === undefined || wanted.startsWith('host') ? 'max,la57=off' : wanted;
}

/** The card that `-vga std` makes would go to the first slot of the bus, whoever was told to have it. */
function vga(plan: PciPlan): string[] {
  const place = plan.at('vga');
  return place === '' ? ['-vga', 'std'] : ['-vga', 'none', '-device', `VGA,id=vga${place}`];
}

/** The monitor's argument: no two run directories share it, so that it also tells whose process a process is. */
export function monitorOption(runDirectory: string): string {
  return `socket,id=qmp,path=${runPaths(runDirectory).qmpPath},server=on,wait=off`;
}

function tpmDevice(model: string, path: string): string[] {
  return [
    ...['-chardev', `socket,id=tpm,path=${path}`, '-tpmdev', 'emulator,id=tpm0,chardev=tpm'],
    ...['-device', `${model},tpmdev=tpm0`],
  ];
}

function agentPort(path: string): string[] {
  return [
    '-chardev',
    `socket,id=qga,path=${path},server=on,wait=off`,
    '-device',
    // With an id, QEMU tells by VSERPORT_CHANGE when the guest opens and closes the port.
    'virtserialport,id=agent,chardev=qga,name=org.qemu.guest_agent.0',
  ];
}

function diskArguments(
  request: StartRequest,
  disk: DiskConfiguration,
  index: number,
  plan: PciPlan,
): string[] {
  const chain = request.disks[disk.diskId];
  if (!chain || chain.length === 0) {
    throw hypervisorFailure('MACHINE_CONFIGURATION_INVALID', `disk ${disk.diskId} has no image`);
  }
  const node = diskNode(disk.diskId);
  const options = chainOptions(chain, { 'node-name': node, discard: 'unmap' });
  // The flash is part of the board, which names what it is made from.
  if (disk.bus === 'pflash') return ['-blockdev', JSON.stringify(options)];
  const common = `drive=${node},id=dev-${disk.diskId}${bootOption(request.configuration, disk, index + 1)}${disk.serial ? `,serial=${disk.serial}` : ''}`;
  const device = {
    'virtio-blk': `virtio-blk-pci,${common}${plan.at(`disk ${disk.diskId}`)}`,
    'virtio-scsi': `scsi-hd,bus=scsi.0,${common}`,
    ide: `ide-hd,${common}`,
    sata: `ide-hd,bus=${sataPort(request.configuration, disk)},${common}`,
  }[disk.bus];
  const isFirstScsi =
    disk.bus === 'virtio-scsi' &&
    request.configuration.disks.findIndex((other) => other.bus === 'virtio-scsi') === index;
  return [
    '-blockdev',
    JSON.stringify(options),
    ...(isFirstScsi ? scsiController(plan) : []),
    '-device',
    device,
  ];
}

function scsiController(plan: PciPlan): string[] {
  return ['-device', `virtio-scsi-pci,id=scsi${plan.at('scsi')}`];
}

/** Each has a port of its own, disks before CD drives; QEMU itself would put all of them into the first one. */
function sataPort(
  { disks, cds = [] }: MachineConfiguration,
  device: DiskConfiguration | CdConfiguration,
): string {
  const onSata: (DiskConfiguration | CdConfiguration)[] = [...disks, ...cds].filter(
    ({ bus }) => bus === 'sata',
  );
  return `ide.${onSata.indexOf(device)}`;
}

/** Where nothing is said of any device, a device has the turn `usual`, or none. */
function bootOption(
  { disks, nics, cds = [] }: MachineConfiguration,
  { bootIndex }: { readonly bootIndex?: number },
  usual?: number,
): string {
  const isSaid = [...disks, ...nics, ...cds].some((device) => device.bootIndex !== undefined);
  const turn = isSaid ? bootIndex : usual;
  return turn === undefined ? '' : `,bootindex=${turn}`;
}

/** A drive whose medium is not here comes up empty. */
function cdArguments(
  configuration: MachineConfiguration,
  cd: CdConfiguration,
  media: ReadonlySet<string>,
  plan: PciPlan,
): string[] {
  const { disks, cds = [] } = configuration;
  const { cdId, bus, medium } = cd;
  const node = `cd-${cdId}`;
  const isInserted = medium !== undefined && media.has(medium.sha256);
  const isFirstScsi =
    bus === 'virtio-scsi' &&
    !disks.some((disk) => disk.bus === 'virtio-scsi') &&
    cds.find((other) => other.bus === 'virtio-scsi') === cd;
  const file = { driver: 'file', filename: medium?.path };
  const options = { 'node-name': node, driver: 'raw', 'read-only': true, file };
  const about = `id=dev-${cdId}${isInserted ? `,drive=${node}` : ''}${bootOption(configuration, cd)}`;
  return [
    ...(isInserted ? ['-blockdev', JSON.stringify(options)] : []),
    ...(isFirstScsi ? scsiController(plan) : []),
    '-device',
    {
      'virtio-scsi': `scsi-cd,bus=scsi.0,${about}`,
      ide: `ide-cd,${about}`,
      sata: `ide-cd,bus=${sataPort(configuration, cd)},${about}`,
    }[bus],
  ];
}

function nicArguments(
  configuration: MachineConfiguration,
  nic: NicConfiguration,
  attachment: NetworkAttachment | undefined,
  plan: PciPlan,
): string[] {
  const id = `net-${nic.nicId}`;
  const device = [
    '-device',
    `${nic.model},id=dev-${nic.nicId},netdev=${id},mac=${nic.mac}${bootOption(configuration, nic)}${plan.at(`nic ${nic.nicId}`)}`,
  ];
  switch (attachment?.kind) {
    case 'tap':
      return [
        '-netdev',
        `tap,id=${id},ifname=${attachment.interfaceName},script=no,downscript=no`,
        ...device,
      ];
    case undefined:
      // A hub without another port is a cable that leads nowhere: the guest keeps its device.
      return ['-netdev', `hubport,id=${id},hubid=${hubOf(nic)}`, ...device];
  }
}

/** A hub number of its own for each NIC, so that unplugged NICs do not reach each other. */
function hubOf(nic: NicConfiguration): number {
  return Number.parseInt(nic.mac.replaceAll(':', '').slice(-6), 16);
}
