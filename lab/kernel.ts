import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { zstdDecompressSync } from 'node:zlib';
import { messageOf, systemCodeOf } from '../src/lib/errors.ts';
import { runCommand } from '../src/lib/processes.ts';
import { labFailure } from './errors.ts';
import { unpackPackages } from './packages.ts';

/** A kernel for the lab guest: an unpacked Debian package. */
export interface Kernel {
  /** What `uname -r` says there. */
  readonly release: string;
  readonly image: string;
  /** Where its modules are, `…/kernel`. */
  readonly modules: string;
}

const PACKAGE = /^linux-image-(\d+(?:\.\d+)*-\d+)-cloud-amd64$/;

/**
 * Debian's cloud kernel: small, and with ext4 and the text console built in. The first call downloads the
 * newest one that this host's package lists know (27 MB; no root needed); later calls find it in
 * `directory` and stay with it until somebody deletes it. Concurrent callers are safe.
 *
 * Throws LAB_KERNEL_UNAVAILABLE when the lists know none or the download fails.
 */
export async function findKernel(directory: string): Promise<Kernel> {
  const unpacked = join(directory, 'kernel');
  const known = await openKernel(unpacked);
  if (known) return known;
  await mkdir(directory, { recursive: true });
  const aside = await mkdtemp(join(directory, 'kernel-aside-'));
  try {
    const name = await newestPackage();
    try {
      await unpackPackages([name], aside, join(aside, 'tree'));
    } catch (error) {
      throw labFailure('LAB_KERNEL_UNAVAILABLE', `${name} could not be downloaded: ${messageOf(error)}`, {
        cause: error,
      });
    }
    await publishDirectory(join(aside, 'tree'), unpacked);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
  const kernel = await openKernel(unpacked);
  if (!kernel)
    throw labFailure('LAB_KERNEL_UNSUITABLE', `the package unpacked in ${unpacked} holds no kernel`);
  return kernel;
}

/** The kernel in a directory that `dpkg -x` filled; undefined if there is none. */
export async function openKernel(tree: string): Promise<Kernel | undefined> {
  for (const modules of ['lib/modules', 'usr/lib/modules']) {
    const release = (await namesIn(join(tree, modules)))[0];
    if (release === undefined) continue;
    return {
      release,
      image: join(tree, 'boot', `vmlinuz-${release}`),
      modules: join(tree, modules, release, 'kernel'),
    };
  }
  return undefined;
}

/**
 * The loadable modules of these names, in the same order, unpacked and ready for insmod. A name that is built
 * into this kernel is left out; one that is neither is LAB_KERNEL_UNSUITABLE.
 */
export async function readModules(
  kernel: Kernel,
  names: readonly string[],
): Promise<{ name: string; bytes: Buffer }[]> {
  const files = (await readdir(kernel.modules, { recursive: true })).filter((file) =>
    /\.ko(\.\w+)?$/.test(file),
  );
  const builtin = await readFile(join(kernel.modules, '..', 'modules.builtin'), 'utf8');
  const result = [];
  for (const name of names) {
    const file = files.find((candidate) => moduleName(candidate) === name);
    if (file !== undefined) {
      result.push({ name: `${name}.ko`, bytes: await readModule(join(kernel.modules, file)) });
    } else if (!builtin.split('\n').some((line) => moduleName(line) === name)) {
      throw labFailure('LAB_KERNEL_UNSUITABLE', `kernel ${kernel.release} has no module ${name}`);
    }
  }
  return result;
}

/**
 * Makes a finished directory visible under its name. If another process was first, its result stands: both
 * were made from the same inputs.
 */
export async function publishDirectory(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    const code = systemCodeOf(error);
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}

function moduleName(path: string): string {
  return path
    .slice(path.lastIndexOf('/') + 1)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

async function readModule(path: string): Promise<Buffer> {
  if (path.endsWith('.zst')) return zstdDecompressSync(await readFile(path));
  if (path.endsWith('.xz')) {
    const options = { encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 } as const;
    return (await promisify(execFile)('xz', ['-dc', path], options)).stdout;
  }
  return await readFile(path);
}

async function newestPackage(): Promise<string> {
  const { stdout } = await runCommand('apt-cache', [
    '--names-only',
    'search',
    '^linux-image-.*-cloud-amd64$',
  ]);
  const names = stdout.split('\n').map((line) => line.split(' ')[0]!);
  const newest = names
    .filter((name) => PACKAGE.test(name))
    .sort(byVersion)
    .at(-1);
  if (newest === undefined) {
    throw labFailure('LAB_KERNEL_UNAVAILABLE', 'the package lists know no linux-image-*-cloud-amd64');
  }
  return newest;
}

function byVersion(a: string, b: string): number {
  return PACKAGE.exec(a)![1]!.localeCompare(PACKAGE.exec(b)![1]!, 'en', { numeric: true });
}

/** The sorted names in a directory; none if it does not exist. */
export async function namesIn(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).sort();
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return [];
    throw error;
  }
}
