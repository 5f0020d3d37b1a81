/**
 * The lease guard as a process of its own: `node lease-guard-main.ts RUN-DIRECTORY PATIENCE-MS`. Started by `QemuLeaseGuards` alone; it says a word on
 * its standard output when it takes orders, and lives as long as its machine.
 */
import { fileURLToPath } from 'node:url';
import { bootClock } from '../../lib/boot-clock.ts';
import { runPaths } from './command-line.ts';
import { LeaseGuardProcess } from './lease-guard-process.ts';
import { processesOfRun } from './run-processes.ts';

/** This file, for whoever starts it. */
export const LEASE_GUARD_PROGRAM = fileURLToPath(import.meta.url);

if (import.meta.main) {
  const runDirectory = process.argv[2] ?? '';
  const paths = runPaths(runDirectory);
  // A guest must not outlive its guard, nor the guard be ended with the site that started it.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
  process.stdout.on('error', () => undefined);
  await LeaseGuardProcess.run(
    {
      monitorPath: paths.guardPath,
      socketPath: paths.leasePath,
      markPath: paths.leaseMarkPath,
      clock: bootClock,
      patienceMs: Number(process.argv[3] ?? 0),
      cutPower: async () => {
        for (const processId of await processesOfRun(runDirectory)) process.kill(processId, 'SIGKILL');
      },
    },
    () => process.stdout.write('ready\n'),
  );
  process.exit(0);
}
