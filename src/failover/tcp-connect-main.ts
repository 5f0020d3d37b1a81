import { once } from 'node:events';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { sleep, systemClock } from '../lib/clock.ts';
import { messageOf } from '../lib/errors.ts';

/**
 * A process that tries to connect until it succeeds: `tcp-connect-main.ts HOST PORT LIMIT_MS`. It is run inside the
 * network namespace of a branch, which the site's own process never enters. Exit code 0: connected; 1: the limit has
 * passed, the last reason is on standard error.
 */
export const CONNECT_PROGRAM = fileURLToPath(import.meta.url);

const TRY_MS_MAX = 2_000;
const PAUSE_MS = 100;

async function main(host: string, port: number, limitMs: number): Promise<number> {
  const deadlineMs = systemClock.monotonicMs() + limitMs;
  for (;;) {
    const failed = await tryOnce(host, port);
    if (failed === undefined) return 0;
    if (systemClock.monotonicMs() + PAUSE_MS > deadlineMs) {
      process.stderr.write(failed);
      return 1;
    }
    await sleep(systemClock, PAUSE_MS);
  }
}

async function tryOnce(host: string, port: number): Promise<string | undefined> {
  const socket = connect({ host, port });
  const cancel = systemClock.after(TRY_MS_MAX, () => socket.destroy(new Error('no answer')));
  try {
    await once(socket, 'connect');
    return undefined;
  } catch (error) {
    return messageOf(error);
  } finally {
    cancel();
    socket.destroy();
  }
}

if (import.meta.main) {
  const [host, port, limitMs] = process.argv.slice(2);
  process.exitCode = await main(host!, Number(port), Number(limitMs));
}
