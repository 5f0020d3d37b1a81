import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { sleep, systemClock } from '../../src/lib/clock.ts';
import { exitOf, spawnFailure } from '../../src/lib/processes.ts';
import type { CleanUp } from './temporary.ts';

/** Starts a program that is ended when the test ends, passed or failed. A missing one fails with TOOL_MISSING. */
export async function startedProcess(
  t: CleanUp,
  command: string,
  args: readonly string[],
): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => reject(spawnFailure(command, error)));
  });
  t.after(async () => {
    child.kill('SIGKILL');
    await exitOf(child);
  });
  return child;
}

/** Waits until a program has made its socket (which nothing but the file system tells); fails after 20 s. */
export async function socketAppears(path: string): Promise<void> {
  for (let tries = 0; !existsSync(path); tries++) {
    if (tries > 1000) throw new Error(`${path} did not appear`);
    await sleep(systemClock, 20);
  }
}
