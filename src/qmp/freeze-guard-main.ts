/**
 * The freeze guard as a process of its own: `node freeze-guard-main.ts AGENT-SOCKET LIMIT-MS`. Started by
 * `FreezeGuard` alone; orders come on standard input, news go to standard output.
 */
import { fileURLToPath } from 'node:url';
import { systemClock } from '../lib/clock.ts';
import { systemRandom } from '../lib/random.ts';
import { runFreezeGuard } from './freeze-guard-process.ts';

/** This file, for whoever starts it. */
export const GUARD_PROGRAM = fileURLToPath(import.meta.url);

if (import.meta.main) {
  const [agentPath = '', limitMs = ''] = process.argv.slice(2);
  const terminated = new AbortController();
  // None of these may end this process while a guest is frozen.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => terminated.abort());
  }
  await runFreezeGuard({
    agentPath,
    limitMs: Number(limitMs),
    clock: systemClock,
    random: systemRandom,
    orders: process.stdin,
    news: process.stdout,
    terminated: terminated.signal,
  });
  // Standard input may still be open, and would keep the process.
  process.exit(0);
}
