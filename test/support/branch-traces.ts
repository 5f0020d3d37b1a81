import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { namespaceOf, tapOf } from '../../src/failover/network.ts';
import { processesOfRun } from '../../src/hypervisor/index.ts';
import { systemCodeOf } from '../../src/lib/errors.ts';
import { runCommand } from '../../src/lib/processes.ts';
import type { FailoverSite } from './failover-site.ts';

/** Everything of a branch that a host could be left with. */
export function leftOf({ tools, replica }: FailoverSite, branchId: string): Promise<string[]> {
  const { runDirectory } = tools;
  return tracesOf({ runDirectory, branchesDirectory: replica.layout.branches }, branchId);
}

/** As `leftOf`, by directories alone: process, namespace, taps, group of CPUs, sockets, files. */
export async function tracesOf(
  o: { readonly runDirectory: string; readonly branchesDirectory: string },
  branchId: string,
): Promise<string[]> {
  const left: string[] = [];
  for (const pid of await processesOfRun(join(o.runDirectory, branchId))) left.push(`process ${pid}`);
  const namespace = namespaceOf(branchId);
  if ((await namespacesOf()).includes(namespace)) left.push('namespace');
  const prefix = tapOf(branchId, 0).slice(0, -1);
  left.push(...(await linkNames()).filter((name) => name.startsWith(prefix)));
  for (const directory of [o.runDirectory, o.branchesDirectory, '/sys/fs/cgroup', '/sys/fs/cgroup/cpu']) {
    for (const name of await namesIn(directory)) {
      if (name === branchId || name === namespace) left.push(join(directory, name));
    }
  }
  return left;
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

export async function namespacesOf(): Promise<string> {
  return (await runCommand('ip', ['netns', 'list'])).stdout;
}

export async function linkNames(): Promise<string[]> {
  const { stdout } = await runCommand('ip', ['-j', 'link', 'show']);
  return (JSON.parse(stdout) as { ifname: string }[]).map(({ ifname }) => ifname).sort();
}
