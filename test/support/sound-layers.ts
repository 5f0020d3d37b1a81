import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { ImageFile } from '../../src/hypervisor/index.ts';
import { sleep, systemClock } from '../../src/lib/clock.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { runCommand } from '../../src/lib/processes.ts';
import { readHeader } from '../../src/qcow2/index.ts';

/** How often a file is looked at that a process writes to: `qemu-img` does not read its tables at one instant. */
const LOOKS_MAX = 5;
const LOOK_AGAIN_MS = 50;

/** Exit codes of `qemu-img check`: 2 of errors and 3 of leaks; with 1 it could not look. */
const LOOKED = [2, 3];

/** What `qemu-img check` found in images; errors fail the test. */
export interface LayersFound {
  readonly files: number;
  /** Of these, how many a process had open for writing. */
  readonly written: number;
  /** Clusters that nothing refers to: they cost space and no data. */
  readonly leaks: number;
}

/**
 * Fails the test unless `qemu-img check` finds no error in any of these images. Nothing is changed, so that sites and machines may
 * be dead or alive. An image that is removed meanwhile is none; one that a process writes to is judged by the best of several looks.
 */
export async function assertSoundLayers(paths: readonly string[]): Promise<LayersFound> {
  const found = { files: 0, written: 0, leaks: 0 };
  for (const path of paths) {
    const check = await checked(path);
    if (!check) continue;
    assert.equal(check.errors, 0, `qemu-img check finds errors in ${path}: ${check.said}`);
    found.files += 1;
    found.written += check.isWritten ? 1 : 0;
    found.leaks += check.leaks;
  }
  return found;
}

/** The layers in `protected/*` or `replicas/*` of a site: what is under way lies elsewhere, or has another name. */
export async function layersIn(machineDirectory: string): Promise<string[]> {
  const disks = join(machineDirectory, 'disks');
  const entries = await readdir(disks, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith('.qcow2'))
    .map(({ parentPath, name }) => join(parentPath, name));
}

interface Check {
  readonly errors: number;
  readonly leaks: number;
  readonly isWritten: boolean;
  readonly said: string;
}

/** Undefined for a file that is there no more. */
async function checked(path: string): Promise<Check | undefined> {
  const atRest = await qemuImgCheck(path, []);
  if (!atRest.isLocked) return atRest.check;
  for (let looks = 1; ; looks++) {
    const { check } = await qemuImgCheck(path, ['-U']);
    if (!check || check.errors === 0 || looks === LOOKS_MAX) return check && { ...check, isWritten: true };
    await sleep(systemClock, LOOK_AGAIN_MS);
  }
}

async function qemuImgCheck(
  path: string,
  options: readonly string[],
): Promise<{ readonly isLocked: boolean; readonly check?: Check }> {
  const args = ['check', ...options, '-f', 'qcow2', '--output=json', path];
  const { stdout, stderr, exitCode } = await runCommand('qemu-img', args, { allowExit: [1, ...LOOKED] });
  if (exitCode === 0 || LOOKED.includes(exitCode)) {
    const { corruptions = 0, leaks = 0, 'check-errors': unread } = JSON.parse(stdout);
    return {
      isLocked: false,
      check: { errors: corruptions + unread, leaks, isWritten: false, said: stdout },
    };
  }
  if (stderr.includes('lock')) return { isLocked: true };
  if ((await nodeFiles.sizeOf(path)) === undefined) return { isLocked: false };
  return { isLocked: false, check: { errors: 1, leaks: 0, isWritten: false, said: stderr } };
}

/** The files that an image is made of, the oldest first, by the backing names in their headers. */
export async function chainInHeaders(path: string): Promise<ImageFile[]> {
  const chain: ImageFile[] = [];
  for (let at: string | undefined = path; at !== undefined; ) {
    chain.unshift({ path: at, format: 'qcow2' });
    const { backing } = await readHeader(nodeFiles, at);
    at = backing ? resolve(dirname(at), backing.name) : undefined;
  }
  return chain;
}
