import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { sleep, systemClock } from '../../src/lib/clock.ts';
import { exitOf, spawnFailure } from '../../src/lib/processes.ts';
import type { CleanUp } from './temporary.ts';

/** Arguments of a QEMU that runs no guest. */
export const EMPTY_MACHINE: readonly string[] = [
  ...['-nodefaults', '-no-user-config', '-display', 'none'],
  ...['-machine', 'q35,accel=tcg', '-m', '16'],
];

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

/**
 * Waits until a program listens on its socket; fails after 20 s. The name alone appears a moment too early,
 * and a connection made as a trial would take the place of the one client that QEMU serves.
 */
export async function socketListens(path: string): Promise<void> {
  for (let tries = 0; !(await listens(path)); tries++) {
    if (tries > 1000) throw new Error(`nobody listens on ${path}`);
    await sleep(systemClock, 20);
  }
}

/** Bit 16 of the flags, the fourth column of /proc/net/unix, marks a socket that listens (__SO_ACCEPTCON). */
async function listens(path: string): Promise<boolean> {
  const line = (await readFile('/proc/net/unix', 'utf8'))
    .split('\n')
    .find((entry) => entry.endsWith(` ${path}`));
  return line !== undefined && (Number.parseInt(line.split(/\s+/)[3] ?? '0', 16) & 0x10000) !== 0;
}
