import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { namespaceOf } from '../../src/failover/network.ts';
import { processesOfRun } from '../../src/hypervisor/index.ts';
import { runCommand } from '../../src/lib/processes.ts';
import type { FailoverSite } from './failover-site.ts';

/** Everything of a branch that a host could be left with. */
export async function leftOf(site: FailoverSite, branchId: string): Promise<string[]> {
  const left: string[] = [];
  const runDirectory = join(site.tools.runDirectory, branchId);
  for (const pid of await processesOfRun(runDirectory)) left.push(`process ${pid}`);
  if ((await namespacesOf()).includes(namespaceOf(branchId))) left.push('namespace');
  for (const directory of [site.tools.runDirectory, site.replica.layout.branches]) {
    for (const name of await readdir(directory)) {
      if (name === branchId) left.push(join(directory, name));
    }
  }
  return left;
}

export async function namespacesOf(): Promise<string> {
  return (await runCommand('ip', ['netns', 'list'])).stdout;
}

export async function linkNames(): Promise<string[]> {
  const { stdout } = await runCommand('ip', ['-j', 'link', 'show']);
  return (JSON.parse(stdout) as { ifname: string }[]).map(({ ifname }) => ifname).sort();
}
