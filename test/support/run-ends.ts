import { join } from 'node:path';
import { branchNetworks } from '../../src/failover/network.ts';
import { endRun } from '../../src/hypervisor/index.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { nodeFiles } from '../../src/lib/node-files.ts';
import { isId } from '../../src/lib/random.ts';

/** Machines outlive their site; they do not outlive the test, nor does what isolates them. */
export async function endRunsOf(dataDirectory: string): Promise<void> {
  const run = join(dataDirectory, 'run');
  for (const name of (await nodeFiles.list(run)) ?? []) {
    await endRun(join(run, name), systemClock);
    if (isId(name)) await branchNetworks.remove(name);
  }
}
