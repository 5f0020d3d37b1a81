/**
 * The pause guard as a process of its own: `node pause-guard-main.ts LIMIT-MS QMP-SOCKET…`. Started by `PauseGuard` alone,
 * which hands over its connection to each socket as file descriptor 3, 4, …; orders come on standard input.
 */
import { closeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../lib/clock.ts';
import { runPauseGuard } from './pause-guard-process.ts';

/** This file, for whoever starts it. */
export const PAUSE_GUARD_PROGRAM = fileURLToPath(import.meta.url);

const FIRST_FD = 3;

if (import.meta.main) {
  const [limitMs = '', ...paths] = process.argv.slice(2);
  const terminated = new AbortController();
  // None of these may end this process while a machine stands still.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => terminated.abort());
  }
  await runPauseGuard({
    monitors: paths.map((path, index) => ({ path, fd: FIRST_FD + index })),
    limitMs: Number(limitMs),
    clock: systemClock,
    orders: process.stdin,
    news: process.stdout,
    terminated: terminated.signal,
    closeFd: closeSync,
  });
  // Standard input may still be open, and would keep the process.
  process.exit(0);
}
