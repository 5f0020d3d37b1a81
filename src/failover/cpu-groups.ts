import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, sleep } from '../lib/clock.ts';
import { messageOf, systemCodeOf } from '../lib/errors.ts';
import { failoverFailure } from './errors.ts';
import type { TestLimits } from './test-limits.ts';

const ROOT = '/sys/fs/cgroup';
const PERIOD_US = 100_000;
/** What `cpu.shares` of version 1 says where `cpu.weight` of version 2 says 100. */
const SHARES_OF_WEIGHT = 10.24;

/** A process that was ended leaves its group when the last of its threads has gone, a moment after it is said to be dead. */
const LEAVING_LIMIT_MS = 10_000;
const LEAVING_EVERY_MS = 20;

type CpuLimits = Pick<TestLimits, 'cpuPercent' | 'cpuWeight'>;

/**
 * Control groups of the kernel that hold a test's process to its share of the CPUs: version 2 (cgroup-v2, «CPU») where this host
 * has its controller there, else version 1. Names follow from the branch's id, as those of networks do. Every method may be
 * repeated. `root` is where the kernel shows them.
 */
export class CpuGroups {
  readonly #clock: Clock;
  readonly #root: string;

  constructor(clock: Clock, root: string = ROOT) {
    this.#clock = clock;
    this.#root = root;
  }

  /**
   * Makes the group of a branch; its limits hold for every process that is put in. Throws FAILOVER_LIMIT_UNAVAILABLE when this
   * host has no such groups or does not let us make one.
   */
  async make(branchId: string, limits: CpuLimits): Promise<void> {
    const version = await this.#version();
    const directory = this.#directory(version, branchId);
    const settings = version === 2 ? settingsOf2(limits) : settingsOf1(limits);
    try {
      if (version === 2) await write(join(this.#root, 'cgroup.subtree_control'), '+cpu');
      await mkdir(directory, { recursive: true });
      for (const [name, value] of settings) await write(join(directory, name), value);
    } catch (error) {
      throw unavailable(messageOf(error));
    }
  }

  /** Whether groups can be made at all: makes one and removes it. Throws as `make`. */
  async check(): Promise<void> {
    await this.make('check', {});
    await this.remove('check');
  }

  /** Puts processes, with all of their threads, into the group of a branch. */
  async enter(branchId: string, processIds: readonly number[]): Promise<void> {
    const procs = join(this.#directory(await this.#version(), branchId), 'cgroup.procs');
    try {
      for (const processId of processIds) await write(procs, String(processId));
    } catch (error) {
      throw unavailable(messageOf(error));
    }
  }

  /**
   * Removes the group of a branch, whose processes have been ended; none is fine. Throws FAILOVER_BRANCH_BUSY if one of them is in it
   * for longer than ending takes.
   */
  async remove(branchId: string): Promise<void> {
    for (const version of [1, 2] as const) {
      const directory = this.#directory(version, branchId);
      const sinceMs = this.#clock.monotonicMs();
      while (!(await isRemoved(directory))) {
        if (this.#clock.monotonicMs() - sinceMs > LEAVING_LIMIT_MS) {
          const said = `processes in ${directory} have been ended and do not end`;
          throw failoverFailure('FAILOVER_BRANCH_BUSY', said, { context: { branchId, directory } });
        }
        await sleep(this.#clock, LEAVING_EVERY_MS);
      }
    }
  }

  #directory(version: 1 | 2, branchId: string): string {
    const name = `ws-${branchId}`;
    return version === 2 ? join(this.#root, name) : join(this.#root, 'cpu', name);
  }

  async #version(): Promise<1 | 2> {
    const controllers = await textOf(join(this.#root, 'cgroup.controllers'));
    if (controllers?.split(/\s+/).includes('cpu')) return 2;
    if ((await textOf(join(this.#root, 'cpu', 'cpu.shares'))) !== undefined) return 1;
    throw unavailable(`${this.#root} has no controller for CPUs`);
  }
}

/** False while a process is in it. */
async function isRemoved(directory: string): Promise<boolean> {
  try {
    await rmdir(directory);
  } catch (error) {
    const code = systemCodeOf(error) ?? '';
    if (code === 'EBUSY') return false;
    // ENOTDIR: no such hierarchy. Where nothing may be written, nothing of ours was made.
    if (!['ENOENT', 'ENOTDIR', 'EROFS', 'EACCES', 'EPERM'].includes(code)) throw error;
  }
  return true;
}

function settingsOf2({ cpuPercent, cpuWeight }: CpuLimits): [name: string, value: string][] {
  return [
    ...(cpuPercent === undefined
      ? []
      : [['cpu.max', `${quotaUs(cpuPercent)} ${PERIOD_US}`] as [string, string]]),
    ...(cpuWeight === undefined ? [] : [['cpu.weight', String(cpuWeight)] as [string, string]]),
  ];
}

function settingsOf1({ cpuPercent, cpuWeight }: CpuLimits): [name: string, value: string][] {
  const shares = cpuWeight === undefined ? undefined : Math.max(2, Math.round(cpuWeight * SHARES_OF_WEIGHT));
  return [
    ...(cpuPercent === undefined
      ? []
      : ([
          ['cpu.cfs_period_us', String(PERIOD_US)],
          ['cpu.cfs_quota_us', String(quotaUs(cpuPercent))],
        ] as [string, string][])),
    ...(shares === undefined ? [] : [['cpu.shares', String(shares)] as [string, string]]),
  ];
}

/** The kernel takes no quota below a millisecond. */
function quotaUs(cpuPercent: number): number {
  return Math.max(1000, (cpuPercent * PERIOD_US) / 100);
}

function write(path: string, value: string): Promise<void> {
  // Without «create»: a file that is not there is a feature that this kernel does not have.
  return writeFile(path, value, { flag: 'r+' });
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(systemCodeOf(error) ?? '')) return undefined;
    throw error;
  }
}

function unavailable(reason: string) {
  return failoverFailure(
    'FAILOVER_LIMIT_UNAVAILABLE',
    `this host cannot limit the CPUs of a test: ${reason}`,
  );
}
