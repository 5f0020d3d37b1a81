import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { messageOf } from '../src/lib/errors.ts';
import { runCommand } from '../src/lib/processes.ts';
import { LAB_CACHE, librariesOf } from './build-guest.ts';
import { labFailure } from './errors.ts';
import { findKernel, namesIn, publishDirectory, readModules } from './kernel.ts';
import { unpackPackages } from './packages.ts';

/** In the order in which they are loaded. */
const MODULES = ['libcrc32c', 'xor', 'raid6_pq', 'zstd_compress', 'btrfs'];
/** The tools, and the one library of theirs that few hosts have. */
const PACKAGES = ['btrfs-progs', 'liblzo2-2'];
const TREE = 'btrfs-progs';
const TOOLS_BYTES = 48 * 1024 * 1024;
const VOLUME_BYTES = 128 * 1024 * 1024;

export interface BtrfsDisks {
  /** Ext4, for `/tools`: `load` loads what the kernel needs, `bin/btrfs` runs without anything else of the guest. */
  readonly tools: { readonly path: string; readonly sizeBytes: number };
  /** An empty btrfs. */
  readonly volume: { readonly path: string; readonly sizeBytes: number };
}

/**
 * Two disks (qcow2) that let the lab guest have a file system with snapshots: one with Debian's tools and the modules of the guest's
 * kernel, one that is a btrfs. Nothing is installed or mounted; the packages are unpacked below `cache`, once.
 * Throws LAB_PACKAGES_UNAVAILABLE, LAB_KERNEL_UNAVAILABLE, LAB_LIBRARY_MISSING, TOOL_MISSING, PROCESS_FAILED.
 */
export async function buildBtrfsDisks(directory: string, cache = LAB_CACHE): Promise<BtrfsDisks> {
  const unpacked = await findTools(cache);
  const tree = await mkdtemp(join(tmpdir(), 'warmsite-btrfs-'));
  try {
    const libraries = await fillTools(tree, unpacked, cache);
    const tools = join(directory, 'tools.raw');
    await runCommand('mke2fs', ['-q', '-t', 'ext4', '-d', tree, tools, String(TOOLS_BYTES / 1024)]);
    const volume = join(directory, 'volume.raw');
    await runCommand('truncate', ['-s', String(VOLUME_BYTES), volume]);
    const search = `LD_LIBRARY_PATH=${[...new Set(libraries.map((path) => dirname(path)))].join(':')}`;
    await runCommand('env', [search, join(unpacked, 'sbin', 'mkfs.btrfs'), '-q', '--mixed', volume]);
    return {
      tools: { path: await asQcow2(tools), sizeBytes: TOOLS_BYTES },
      volume: { path: await asQcow2(volume), sizeBytes: VOLUME_BYTES },
    };
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}

async function findTools(cache: string): Promise<string> {
  const place = join(cache, TREE);
  if ((await namesIn(place)).length > 0) return place;
  await mkdir(cache, { recursive: true });
  const aside = await mkdtemp(join(cache, 'btrfs-aside-'));
  try {
    await unpackPackages(PACKAGES, aside, join(aside, 'tree'));
    await publishDirectory(join(aside, 'tree'), place);
    return place;
  } catch (error) {
    const said = `btrfs for a guest could not be fetched into ${place}: ${messageOf(error)}`;
    throw labFailure('LAB_PACKAGES_UNAVAILABLE', said, { cause: error });
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

/** Returns the libraries that were put in, where this host or the packages have them. */
async function fillTools(tree: string, unpacked: string, cache: string): Promise<string[]> {
  const program = join(unpacked, 'bin', 'btrfs');
  const places: string[] = [];
  for (const place of ['lib', 'usr/lib'].map((name) => join(unpacked, name))) {
    places.push(...(await namesIn(place)).map((name) => join(place, name)));
  }
  const libraries = await librariesOf([program], places);
  for (const name of ['bin', 'lib', 'modules']) await mkdir(join(tree, name));
  await copyFile(program, join(tree, 'bin', 'btrfs.real'));
  for (const path of libraries)
    await copyFile(path, join(tree, 'lib', path.slice(path.lastIndexOf('/') + 1)));
  const loader = libraries
    .map((path) => path.slice(path.lastIndexOf('/') + 1))
    .find((name) => /^ld-/.test(name))!;
  const run = `exec /tools/lib/${loader} --library-path /tools/lib /tools/bin/btrfs.real "$@"`;
  await writeFile(join(tree, 'bin', 'btrfs'), `#!/bin/sh\n${run}\n`, { mode: 0o755 });
  const modules = await readModules(await findKernel(cache), MODULES);
  for (const { name, bytes } of modules) await writeFile(join(tree, 'modules', name), bytes);
  const loads = modules.map(({ name }) => `insmod /tools/modules/${name}`);
  await writeFile(join(tree, 'load'), `#!/bin/sh\n${loads.join(' &&\n')}\n`, { mode: 0o755 });
  return libraries;
}

async function asQcow2(raw: string): Promise<string> {
  const path = raw.replace(/\.raw$/, '.qcow2');
  await runCommand('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, path]);
  await rm(raw);
  return path;
}
