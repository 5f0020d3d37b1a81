import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { CleanUp } from './temporary.ts';
import type { TwoSites } from './two-sites.ts';

const PROGRAM = join(import.meta.dirname, 'site-process.ts');

/** Both sites as a process of their own (`site-process.ts`), which ends with the test at the latest. */
export async function startedSites(
  t: CleanUp,
  sites: Pick<TwoSites, 'directory' | 'identity'>,
  mode: readonly string[],
): Promise<ChildProcess> {
  const identity = join(sites.directory, 'identity.json');
  await writeFile(identity, JSON.stringify(sites.identity));
  const child = spawn(process.execPath, [PROGRAM, identity, ...mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => void child.kill('SIGKILL'));
  return child;
}

/** The same as soon as it has told this news. */
export async function siteUntil(
  t: CleanUp,
  sites: Pick<TwoSites, 'directory' | 'identity'>,
  mode: readonly string[],
  news: string,
): Promise<ChildProcess> {
  const child = await startedSites(t, sites, mode);
  for await (const line of createInterface({ input: child.stdout! })) {
    if (JSON.parse(line).news === news) return child;
  }
  throw new Error(`the process of the sites ended before it told «${news}»`);
}
