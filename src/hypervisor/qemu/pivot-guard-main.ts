/**
 * The pivot guard as a process of its own: `node pivot-guard-main.ts ORDERS`, a JSON object. Started by `PivotGuard` alone; it ends
 * when it is released by a word on its standard input, and settles the pivots when that ends without one.
 */
import { fileURLToPath } from 'node:url';
import { systemClock as clock } from '../../lib/clock.ts';
import { nodeFiles as files } from '../../lib/node-files.ts';
import { impulsesOf, persistently } from '../../qmp/index.ts';
import { settlePivots } from '../pivot.ts';
import type { PivotOrders } from './pivot-guard.ts';
import { PivotedQemu } from './pivoted-qemu.ts';

/** This file, for whoever starts it. */
export const PIVOT_GUARD_PROGRAM = fileURLToPath(import.meta.url);

if (import.meta.main) {
  const { qmpPath, pivots, options } = JSON.parse(process.argv[2] ?? '') as PivotOrders;
  // None of these may end this process while a machine stands still; its parent is asked to end, too.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
  const impulses = impulsesOf<'release'>({
    ...{ orders: process.stdin, clock },
    terminated: new AbortController().signal,
  });
  // A parent that is gone breaks the pipe; its end of the order pipe tells the same.
  process.stdout.on('error', () => undefined);
  process.stdout.write('ready\n');
  if ((await impulses.next()) !== 'release') {
    await persistently(qmpPath, clock, (qmp) =>
      settlePivots({ machine: new PivotedQemu(qmp), pivots, files, options }),
    );
  }
  // Standard input may still be open, and would keep the process.
  process.exit(0);
}
