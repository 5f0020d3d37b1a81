import { readdir, readFile } from 'node:fs/promises';

/** The ids of the guard processes of a kind that see to the socket at this path. */
export async function guardsOf(
  socketPath: string,
  program: 'freeze-guard-main' | 'pivot-guard-main' | 'lease-guard-main' = 'freeze-guard-main',
): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // A process may end while it is looked at.
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (line.includes(program) && line.includes(socketPath)) found.push(Number(name));
  }
  return found;
}
