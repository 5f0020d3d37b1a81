import { writeSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import type { Clock } from '../lib/clock.ts';
import { systemCodeOf } from '../lib/errors.ts';
import { impulsesOf } from './guard-impulses.ts';
import { PAUSE_GUARD_ID } from './messages.ts';
import { persistently } from './persistently.ts';
import type { QmpClient } from './qmp-client.ts';

/** What the parent asks of the guard process: one JSON object a line on its standard input. */
export type PauseOrder =
  /** The machines are being stopped from now on. */
  | { readonly order: 'arm' }
  /** They have all been continued. */
  | { readonly order: 'release' }
  /** The parent could not continue them all. */
  | { readonly order: 'continue' };

export interface GuardedMonitor {
  readonly path: string;
  /** The parent's own connection, open here too: QEMU would let no second client in while the parent holds it. */
  readonly fd: number;
}

export interface PauseGuardOptions {
  readonly monitors: readonly GuardedMonitor[];
  /** Longest time in which the machines may stand still, from the order to watch. */
  readonly limitMs: number;
  readonly clock: Clock;
  readonly orders: Readable;
  readonly news: Writable;
  /** Aborted when this process is told to end. */
  readonly terminated: AbortSignal;
  readonly closeFd: (fd: number) => void;
}

/**
 * The life of a pause guard: ready, armed, released. Whatever happens between arming and release leads to `cont` for every
 * machine, at once over the connections of the parent, and once that has gone, confirmed over new ones.
 */
export async function runPauseGuard(o: PauseGuardOptions): Promise<void> {
  // A parent that is gone breaks the pipe; its end of the order pipe tells the same.
  o.news.on('error', () => undefined);
  const impulses = impulsesOf<PauseOrder['order']>(o);
  o.news.write('ready\n');
  if ((await impulses.next()) !== 'arm') return;
  const disarm = impulses.limitAfter(o.limitMs);
  for (;;) {
    const impulse = await impulses.next();
    disarm();
    if (impulse === 'release') return;
    for (const { fd } of o.monitors) writeContinue(fd);
    // The parent lives and reads the answers; it will say that all are well, or end.
    if (impulse === 'limit' || impulse === 'signal' || impulse === 'arm') continue;
    for (const { fd } of o.monitors) o.closeFd(fd);
    await Promise.all(o.monitors.map(({ path }) => persistently(path, o.clock, run)));
    return;
  }
}

function writeContinue(fd: number): void {
  try {
    writeSync(fd, `${JSON.stringify({ execute: 'cont', id: PAUSE_GUARD_ID })}\n`);
  } catch (error) {
    // The machine has gone, or lets nothing more in: what can be done is done over a connection of our own.
    if (systemCodeOf(error) === undefined) throw error;
  }
}

/** Runs a machine that stands still. */
async function run(client: QmpClient): Promise<void> {
  const { status } = await client.execute<{ status: string }>('query-status');
  if (status === 'paused') await client.execute('cont');
}
