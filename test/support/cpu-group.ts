import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Where the kernel shows the groups of CPUs, by the version of groups that a host has. */
const ROOTS = ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup'];

/** A file of the CPU group of a branch, whichever version of groups this host has; empty if there is no group or no such file. */
async function fileOfGroup(branchId: string, name: string): Promise<string> {
  const group = `ws-${branchId}`;
  for (const root of ROOTS) {
    if (!(await readdir(root)).includes(group)) continue;
    const directory = join(root, group);
    if ((await readdir(directory)).includes(name)) return readFile(join(directory, name), 'utf8');
  }
  return '';
}

/** The numbers that the kernel counts of the CPU group of a branch. */
export function cpuStatOf(branchId: string): Promise<string> {
  return fileOfGroup(branchId, 'cpu.stat');
}

/** How often the CPU group of a branch has been held up; undefined if there is none. */
export async function throttledOf(branchId: string): Promise<number | undefined> {
  const [, count] = /nr_throttled (\d+)/.exec(await cpuStatOf(branchId)) ?? [];
  return count === undefined ? undefined : Number(count);
}

/** What the processes of a branch may take in all, in percent of one CPU. */
export async function cpuPercentOf(branchId: string): Promise<number> {
  const told =
    (await fileOfGroup(branchId, 'cpu.max')) ||
    `${await fileOfGroup(branchId, 'cpu.cfs_quota_us')} ${await fileOfGroup(branchId, 'cpu.cfs_period_us')}`;
  const [quotaUs, periodUs] = told.trim().split(/\s+/).map(Number);
  return (100 * quotaUs!) / periodUs!;
}

/** The processes in the CPU group of a branch. */
export async function processesInGroup(branchId: string): Promise<number[]> {
  const told = (await fileOfGroup(branchId, 'cgroup.procs')).trim();
  return told === '' ? [] : told.split('\n').map(Number);
}
