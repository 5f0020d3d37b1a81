import { connectGuest, type MachineSockets, type RunningMachine } from '../../hypervisor/index.ts';
import { type Clock, sleep } from '../../lib/clock.ts';
import { isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { type Asking, nextAsk } from './guest-end-plan.ts';

export interface GuestEndTools {
  readonly clock: Clock;
  readonly log: Log;
}

type Guest = Pick<RunningMachine, 'sockets' | 'pressPowerButton' | 'gone'>;

/**
 * Asks a guest to shut down, as `nextAsk` says, and waits for its end. False: it has not ended within `graceMs`; it may do so later.
 * Throws why `signal` was aborted, and what keeps the power button from being pressed.
 */
export async function guestEnds(
  tools: GuestEndTools,
  guest: Guest,
  graceMs: number,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const { clock, log } = tools;
  const ending = new AbortController();
  const either = signal ? AbortSignal.any([signal, ending.signal]) : ending.signal;
  let hasGone = false;
  const gone = guest.gone.then(() => {
    hasGone = true;
  });
  const beganMs = clock.monotonicMs();
  let asking: Omit<Asking, 'atMs'> = { graceMs, agent: 'unasked', isButtonPressed: false };
  try {
    while (!hasGone) {
      const next = nextAsk({ ...asking, atMs: clock.monotonicMs() - beganMs });
      if (next.act === 'give-up') return false;
      if (next.act === 'wait') await Promise.race([gone, sleep(clock, next.forMs, either)]);
      else if (next.act === 'ask-agent')
        asking = { ...asking, agent: await askAgent(tools, guest.sockets, next.limitMs, either) };
      else {
        log.info('machine.button-pressed', { agent: asking.agent });
        asking = { ...asking, isButtonPressed: true };
        await press(guest);
      }
    }
    return true;
  } finally {
    ending.abort();
  }
}

/**
 * Ends the process of a machine: in good order if its guest shuts down within `graceMs`, else by its power. A guest that stands still
 * is not waited for.
 */
export async function endProcess(
  tools: GuestEndTools,
  running: Guest & Pick<RunningMachine, 'state' | 'quit'>,
  graceMs: number,
  signal: AbortSignal,
): Promise<'shut-down' | 'powered-off'> {
  try {
    const state = await running.state();
    const hears = state !== 'paused' && state !== 'io-error';
    if (hears && (await guestEnds(tools, running, graceMs, signal))) return 'shut-down';
  } catch (error) {
    // Whoever gives up waiting, or closes the site, wants nobody's power cut.
    if (signal.aborted || !isFailure(error) || error.kind === 'cancelled') throw error;
    tools.log.warn('machine.not-asked', { reason: error.message });
  }
  await running.quit();
  return 'powered-off';
}

/** One that has gone meanwhile is told of by its end. */
async function press(guest: Guest): Promise<void> {
  try {
    await guest.pressPowerButton();
  } catch (error) {
    if (!isFailure(error, 'QMP_DISCONNECTED')) throw error;
    await guest.gone;
  }
}

async function askAgent(
  { clock, log }: GuestEndTools,
  sockets: MachineSockets,
  limitMs: number,
  signal: AbortSignal,
): Promise<'silent' | 'has-taken-it'> {
  if (sockets.agentPath === undefined) return 'silent';
  try {
    await using guest = await connectGuest(sockets, { clock, timeoutMs: limitMs, signal });
    await guest.shutdown('powerdown');
    return 'has-taken-it';
  } catch (error) {
    if (!isFailure(error) || error.kind === 'cancelled') throw error;
    log.info('machine.agent-silent', { reason: error.message });
    return 'silent';
  }
}
