import { readdir, readFile } from 'node:fs/promises';

/** The ids of the freeze guard processes that hold this agent. */
export async function guardsOf(agentPath: string): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // A process may end while it is looked at.
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (line.includes('freeze-guard-main') && line.includes(agentPath)) found.push(Number(name));
  }
  return found;
}
