import { openSync, readFileSync, readSync } from 'node:fs';
import { type Clock, systemClock } from './clock.ts';

/** A clock that begins with its host. */
export interface BootClock extends Clock {
  /** Which start of the host it is. Moments of two starts have nothing to do with each other. */
  bootId(): string;
}

/** Open from the start: a process, or a host, that has no file left to open must still know the time. */
const UPTIME = openSync('/proc/uptime', 'r');

function uptimeMs(): number {
  const text = Buffer.alloc(64);
  const length = readSync(UPTIME, text, 0, text.length, 0);
  return Math.round(Number.parseFloat(text.toString('latin1', 0, length)) * 1000);
}

/**
 * A clock of this host that all its processes share, and that goes on while the host is suspended: whoever compares two moments across
 * processes, or must not take a night of sleep for an instant, asks this one. Its monotonic time is since the host was started, in steps
 * of 10 ms (proc(5), uptime).
 */
export const bootClock: BootClock = {
  ...systemClock,
  monotonicMs: uptimeMs,
  bootId: () => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
};
