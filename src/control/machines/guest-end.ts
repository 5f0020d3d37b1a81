import { shutsDown } from '../../failover/index.ts';
import { connectGuest, type MachineSockets, type RunningMachine } from '../../hypervisor/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';

export interface GuestEndTools {
  readonly clock: Clock;
  readonly log: Log;
}

const AGENT_LIMIT_MS = 3_000;

/** Asks a guest to shut down: by its agent, or, where none takes the request, by its power button. Whether it does is seen later. */
export async function askGuestToEnd(
  tools: GuestEndTools,
  running: Pick<RunningMachine, 'sockets' | 'pressPowerButton'>,
): Promise<void> {
  if (!(await askAgent(tools, running.sockets))) await running.pressPowerButton();
}

/**
 * Ends the process of a machine: in good order if its guest shuts down within `graceMs`, else by its power. A guest that stands still
 * is not waited for.
 */
export async function endProcess(
  tools: GuestEndTools,
  running: Pick<RunningMachine, 'sockets' | 'pressPowerButton' | 'state' | 'gone' | 'quit'>,
  graceMs: number,
  signal: AbortSignal,
): Promise<'shut-down' | 'powered-off'> {
  const ask = (guest: typeof running) => askGuestToEnd(tools, guest);
  if (await shutsDown(tools, running, graceMs, signal, ask)) return 'shut-down';
  await running.quit();
  return 'powered-off';
}

async function askAgent({ clock, log }: GuestEndTools, sockets: MachineSockets): Promise<boolean> {
  if (sockets.agentPath === undefined) return false;
  try {
    await using guest = await connectGuest(sockets, { clock, timeoutMs: AGENT_LIMIT_MS });
    await guest.shutdown('powerdown');
    return true;
  } catch (error) {
    if (!isFailure(error)) throw error;
    log.info('machine.agent-silent', { reason: error.message });
    return false;
  }
}
