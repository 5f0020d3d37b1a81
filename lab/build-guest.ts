import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { libFailure, systemCodeOf } from '../src/lib/errors.ts';
import { runCommand } from '../src/lib/processes.ts';
import { labFailure } from './errors.ts';
import { findKernel, type Kernel, openKernel, publishDirectory, readModules } from './kernel.ts';

/** The disks of a lab guest, qcow2 without backing file. The ones that `buildLabGuest` returns are masters. */
export interface LabGuest {
  /** 192 MiB, /dev/vda: boot loader and kernel (FAT16), root (ext4), ledger area of 16 MiB. */
  readonly systemDisk: string;
  /** 256 MiB, /dev/vdb: ledger area of 64 MiB, /data (ext4). */
  readonly dataDisk: string;
}

/** Where the ledger's areas are, in the order in which records are striped over them (see labtool.c). */
export const LEDGER_AREAS = [
  { disk: 'data', partition: 1 },
  { disk: 'system', partition: 3 },
] as const;

/** The ledger of a guest with both disks fills no more than this of each area: the size of the smaller one. */
export const LEDGER_AREA_BYTES = 16 * 1024 * 1024;

const SECTOR_BYTES = 512;
const KIB = 1024;

/** Partitions in sectors; type da is «no file system». */
const SYSTEM_LAYOUT = {
  sectors: 393_216,
  boot: { start: 2_048, size: 65_536, type: '6, bootable' },
  root: { start: 67_584, size: 292_864, type: '83' },
  ledger: { start: 360_448, size: 32_768, type: 'da' },
} as const;
const DATA_LAYOUT = {
  sectors: 524_288,
  ledger: { start: 2_048, size: 131_072, type: 'da' },
  data: { start: 133_120, size: 391_168, type: '83' },
} as const;

/** What it takes to see the disks and the ports, in the order of dependence. */
const FIRST_MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'virtio_blk',
  'virtio_console',
];
/** Network and power button, loaded when the agent is up already. */
const LATER_MODULES = ['failover', 'net_failover', 'virtio_net', 'button', 'evdev'];

/** There for whoever asks for them: the file system of the UEFI variables, which only a machine with UEFI has. */
const MODULES_ON_DEMAND = ['efivarfs'];

/** What UEFI starts from a disk that it knows nothing of (UEFI 2.10, 3.5.1.1), and what that loads. */
const UEFI_FILES = [
  { path: '/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi', name: 'BOOTX64.EFI', packageName: 'syslinux-efi' },
  {
    path: '/usr/lib/syslinux/modules/efi64/ldlinux.e64',
    name: 'ldlinux.e64',
    packageName: 'syslinux-common',
  },
];

/** Where each file of lab/guest goes in the root file system. */
const GUEST_FILES: Readonly<Record<string, string>> = {
  behind: 'sbin/behind',
  ledger: 'sbin/ledger',
  'app-writer': 'sbin/app-writer',
  tier: 'sbin/tier',
  shutdown: 'sbin/shutdown',
  'udhcpc-script': 'sbin/udhcpc-script',
  'fsfreeze-hook': 'etc/qemu/fsfreeze-hook',
  'hook-sqlite': 'etc/qemu/fsfreeze-hook.d/sqlite',
  'power-button': 'etc/acpi/PWRF/00000080',
};

/** File systems with fixed identities and nothing left to do later: no thread writes behind the guest's back. */
const EXT4_OPTIONS = 'lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0';

const HERE = import.meta.dirname;
export const LAB_CACHE = join(HERE, '..', '.cache', 'lab');

/**
 * Builds the disks of the lab guest, a Linux that boots from its own disk, by BIOS in about two seconds without KVM or by UEFI, and
 * holds what tests of disaster recovery need: QEMU's guest agent, a ledger of writes, an application with a
 * database and a freeze hook, a web server, a text console. Nothing is mounted and root is not needed.
 *
 * The result lies below `directory` under a digest of everything it is made from; a second call only looks
 * it up. It is built aside and renamed, so that concurrent callers are safe. The disks are masters: work on
 * copies (`copyLabGuest`).
 *
 * `kernelDirectory` is an unpacked kernel package; without it one is downloaded once (see `findKernel`).
 *
 * Throws TOOL_MISSING or PROCESS_FAILED when this host lacks a tool or one fails, LAB_KERNEL_UNAVAILABLE,
 * LAB_KERNEL_UNSUITABLE, LAB_LIBRARY_MISSING.
 */
export async function buildLabGuest(
  options: { directory?: string; kernelDirectory?: string } = {},
): Promise<LabGuest> {
  const directory = options.directory ?? LAB_CACHE;
  const kernel = options.kernelDirectory
    ? await openKernel(options.kernelDirectory)
    : await findKernel(directory);
  if (!kernel) {
    throw labFailure('LAB_KERNEL_UNSUITABLE', `${options.kernelDirectory} is no unpacked kernel package`);
  }
  const programs = await findPrograms();
  const home = join(directory, `guest-${await digestOf(kernel, programs)}`);
  const guest = { systemDisk: join(home, 'system.qcow2'), dataDisk: join(home, 'data.qcow2') };
  if (await exists(home)) return guest;
  await mkdir(directory, { recursive: true });
  const work = await mkdtemp(join(directory, 'guest-aside-'));
  try {
    const finished = join(work, 'finished');
    await mkdir(finished);
    await buildSystemDisk(work, kernel, programs);
    await buildDataDisk(work);
    for (const disk of ['system', 'data']) {
      await runCommand(
        'qemu-img',
        [...['convert', '-f', 'raw', '-O', 'qcow2', `${disk}.raw`, join(finished, `${disk}.qcow2`)]],
        { cwd: work },
      );
      await chmod(join(finished, `${disk}.qcow2`), 0o444);
    }
    await publishDirectory(finished, home);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return guest;
}

/** Writable copies of a guest's disks in `directory`, which exists: shared blocks where the file system can. */
export async function copyLabGuest(guest: LabGuest, directory: string): Promise<LabGuest> {
  const copy = { systemDisk: join(directory, 'system.qcow2'), dataDisk: join(directory, 'data.qcow2') };
  for (const disk of ['systemDisk', 'dataDisk'] as const) {
    await copyFile(guest[disk], copy[disk], constants.COPYFILE_FICLONE);
    await chmod(copy[disk], 0o600);
  }
  return copy;
}

interface Programs {
  readonly busybox: string;
  readonly qemuGa: string;
  readonly sqlite3: string;
}

async function findPrograms(): Promise<Programs> {
  return {
    busybox: await findProgram('busybox', 'busybox-static'),
    qemuGa: await findProgram('qemu-ga', 'qemu-guest-agent'),
    sqlite3: await findProgram('sqlite3', 'sqlite3'),
  };
}

async function findProgram(name: string, packageName: string): Promise<string> {
  for (const directory of ['/usr/bin', '/usr/sbin', '/bin', '/sbin', '/usr/local/bin']) {
    const path = join(directory, name);
    if (await exists(path)) return path;
  }
  throw libFailure('TOOL_MISSING', `${name} is not installed (Debian: ${packageName})`, {
    context: { command: name },
  });
}

/** Our own texts by content; the host's programs and the kernel by name, size and time of change. */
async function digestOf(kernel: Kernel, programs: Programs): Promise<string> {
  const hash = createHash('sha256');
  const guestFiles = (await readdir(join(HERE, 'guest'))).sort().map((name) => join('guest', name));
  for (const file of ['build-guest.ts', 'labtool.c', 'tpmtool.c', ...guestFiles]) {
    hash
      .update(`${file}\0`)
      .update(await readFile(join(HERE, file)))
      .update('\0');
  }
  hash.update(kernel.release);
  for (const path of [kernel.image, ...Object.values(programs)]) {
    const { size, mtimeMs } = await stat(path);
    hash.update(`${path} ${size} ${mtimeMs}\0`);
  }
  return hash.digest('hex').slice(0, 24);
}

async function buildSystemDisk(work: string, kernel: Kernel, programs: Programs): Promise<void> {
  const { boot, root } = SYSTEM_LAYOUT;
  const image = join(work, 'system.raw');
  await makePartitions(image, SYSTEM_LAYOUT);
  await buildInitrd(work, kernel);
  const bootOffset = boot.start * SECTOR_BYTES;
  await runCommand('mkfs.fat', [
    ...['-F', '16', '--offset', String(boot.start), '-i', '57530001', image],
    String((boot.size * SECTOR_BYTES) / KIB),
  ]);
  const drive = `${image}@@${bootOffset}`;
  await runCommand('mcopy', ['-i', drive, kernel.image, '::vmlinuz']);
  await runCommand('mcopy', ['-i', drive, join(work, 'initrd'), join(HERE, 'guest', 'syslinux.cfg'), '::']);
  await runCommand('mmd', ['-i', drive, '::EFI', '::EFI/BOOT']);
  for (const { path, name, packageName } of UEFI_FILES) {
    await checkFile(path, packageName);
    await runCommand('mcopy', ['-i', drive, path, `::EFI/BOOT/${name}`]);
  }
  await runCommand('syslinux', ['--install', '--offset', String(bootOffset), image]);
  await installBootSector(image);
  await buildRoot(join(work, 'root'), kernel, programs);
  await makeExt4(image, root, 1, ['-d', join(work, 'root')]);
}

async function buildDataDisk(work: string): Promise<void> {
  const image = join(work, 'data.raw');
  await makePartitions(image, DATA_LAYOUT);
  await makeExt4(image, DATA_LAYOUT.data, 2, []);
}

interface Partition {
  readonly start: number;
  readonly size: number;
  readonly type: string;
}

async function makePartitions(
  image: string,
  layout: { readonly sectors: number } & Readonly<Record<string, Partition | number>>,
): Promise<void> {
  await writeFile(image, '');
  await truncate(image, layout.sectors * SECTOR_BYTES);
  const partitions = Object.values(layout).filter((value) => typeof value !== 'number');
  const lines = partitions.map((part) => `start=${part.start}, size=${part.size}, type=${part.type}`);
  await runCommand('sfdisk', ['-q', image], {
    input: `label: dos\nlabel-id: 0x57530000\n${lines.join('\n')}\n`,
  });
}

async function makeExt4(image: string, part: Partition, number: number, extra: string[]): Promise<void> {
  const identity = `57530000-0000-4000-8000-00000000000${number}`;
  await runCommand('mke2fs', [
    ...['-q', '-F', '-t', 'ext4', '-U', identity],
    ...['-E', `offset=${part.start * SECTOR_BYTES},hash_seed=${identity},${EXT4_OPTIONS}`],
    ...extra,
    ...[image, `${(part.size * SECTOR_BYTES) / KIB}k`],
  ]);
}

/** The code that reads the active partition's boot sector; the partition table behind it stays. */
async function installBootSector(image: string): Promise<void> {
  const mbr = '/usr/lib/syslinux/mbr/mbr.bin';
  await checkFile(mbr, 'syslinux-common');
  await runCommand('dd', [`if=${mbr}`, `of=${image}`, 'conv=notrunc', 'bs=440', 'count=1', 'status=none']);
}

async function checkFile(path: string, packageName: string): Promise<void> {
  if (await exists(path)) return;
  throw libFailure('TOOL_MISSING', `${path} is not there (Debian: ${packageName})`, {
    context: { command: path },
  });
}

async function buildInitrd(work: string, kernel: Kernel): Promise<void> {
  const tree = join(work, 'initrd-tree');
  await makeDirectories(tree, ['dev', 'proc', 'mnt', 'modules']);
  await runCommand('tcc', [
    '-Wall',
    '-static',
    '-nostdlib',
    '-o',
    join(tree, 'init'),
    join(HERE, 'guest', 'init.c'),
  ]);
  await writeModules(join(tree, 'modules'), kernel, FIRST_MODULES);
  const names = (await readdir(tree, { recursive: true })).sort();
  const archive = join(work, 'initrd.cpio');
  await runCommand('cpio', ['-o', '-H', 'newc', '--quiet', '-R', '0:0', '-F', archive], {
    cwd: tree,
    input: names.map((name) => `${name}\n`).join(''),
  });
  await writeFile(join(work, 'initrd'), gzipSync(await readFile(archive), { level: 6 }));
}

async function buildRoot(root: string, kernel: Kernel, programs: Programs): Promise<void> {
  await makeDirectories(root, [
    ...[
      'bin',
      'sbin',
      'dev',
      'proc',
      'sys',
      'etc',
      'tmp',
      'run',
      'root',
      'data',
      'var',
      'usr/bin',
      'usr/sbin',
    ],
    ...['lib/modules', 'lib64'],
  ]);
  await copyFile(programs.busybox, join(root, 'bin', 'busybox'));
  const { stdout: applets } = await runCommand(programs.busybox, ['--list']);
  for (const applet of applets.trim().split('\n')) {
    if (applet !== 'busybox') await symlink('busybox', join(root, 'bin', applet));
  }
  await symlink('../run', join(root, 'var', 'run'));
  await symlink('../run/log', join(root, 'var', 'log'));
  await symlink('../proc/mounts', join(root, 'etc', 'mtab'));
  for (const [name, target] of Object.entries(GUEST_FILES)) {
    await mkdir(dirname(join(root, target)), { recursive: true });
    await copyFile(join(HERE, 'guest', name), join(root, target));
    await chmod(join(root, target), 0o755);
  }
  await writeFile(join(root, 'etc', 'passwd'), 'root:x:0:0::/root:/bin/sh\n');
  await writeFile(join(root, 'etc', 'group'), 'root:x:0:\n');
  await writeFile(join(root, 'etc', 'hostname'), 'lab\n');
  await writeFile(
    join(root, 'etc', 'os-release'),
    'NAME="Warmsite lab guest"\nID=warmsite-lab\nVERSION_ID=1\nPRETTY_NAME="Warmsite lab guest"\n',
  );
  const modules = join(root, 'lib', 'modules');
  await writeModules(modules, kernel, LATER_MODULES);
  await mkdir(join(modules, 'on-demand'));
  await writeModules(join(modules, 'on-demand'), kernel, MODULES_ON_DEMAND);
  const labtool = join(root, 'usr', 'bin', 'labtool');
  await runCommand('tcc', ['-Wall', '-o', labtool, join(HERE, 'labtool.c')]);
  const tpmtool = join(root, 'usr', 'bin', 'tpmtool');
  await runCommand('tcc', ['-Wall', '-o', tpmtool, join(HERE, 'tpmtool.c')]);
  await copyFile(programs.qemuGa, join(root, 'usr', 'sbin', 'qemu-ga'));
  await copyFile(programs.sqlite3, join(root, 'usr', 'bin', 'sqlite3'));
  for (const library of await librariesOf([labtool, tpmtool, programs.qemuGa, programs.sqlite3])) {
    await mkdir(dirname(join(root, library)), { recursive: true });
    await copyFile(library, join(root, library));
  }
}

/**
 * The shared libraries of some programs and the loader, by the paths under which they look for them: in the
 * directories of `searchFirst`, then where this host has them. LAB_LIBRARY_MISSING when one is in neither.
 */
export async function librariesOf(
  programs: readonly string[],
  searchFirst: readonly string[] = [],
): Promise<string[]> {
  const search = `LD_LIBRARY_PATH=${searchFirst.join(':')}`;
  const { stdout } = await runCommand('env', [search, 'ldd', ...programs]);
  const missing = /(\S+) => not found/.exec(stdout)?.[1];
  if (missing !== undefined) {
    throw labFailure('LAB_LIBRARY_MISSING', `${missing} is needed by one of ${programs.join(', ')}`);
  }
  const paths = [...stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(0x/gm)].map((match) => match[1]!);
  return [...new Set(paths)].sort();
}

async function writeModules(directory: string, kernel: Kernel, names: readonly string[]): Promise<void> {
  const modules = await readModules(kernel, names);
  for (const { name, bytes } of modules) await writeFile(join(directory, name), bytes);
  await writeFile(join(directory, 'order'), modules.map(({ name }) => `${name}\n`).join(''));
}

async function makeDirectories(root: string, names: readonly string[]): Promise<void> {
  for (const name of names) await mkdir(join(root, name), { recursive: true });
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return false;
    throw error;
  }
}

if (import.meta.main) {
  const guest = await buildLabGuest();
  console.log(`${guest.systemDisk}\n${guest.dataDisk}`);
}
