import type { RunningMachine } from '../hypervisor/index.ts';
import { sleep } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import type { FailoverTools } from './tools.ts';

type Ending = Pick<RunningMachine, 'pressPowerButton' | 'state' | 'gone'>;

/**
 * Asks the guest of a machine to shut down, by its power button, and waits for its end. False: it has not ended in time, or could
 * not be asked. Throws why `signal` was aborted.
 */
export async function shutsDown(
  { clock }: Pick<FailoverTools, 'clock'>,
  machine: Ending,
  graceMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  if (graceMs === 0) return false;
  const waiting = new AbortController();
  const either = signal ? AbortSignal.any([signal, waiting.signal]) : waiting.signal;
  const late = sleep(clock, graceMs, either).then(() => false);
  late.catch(() => {
    // It is waited for below, unless the machine could not be asked; that ends the waiting.
  });
  try {
    // A guest that stands still would not hear it.
    const state = await machine.state();
    if (state === 'paused' || state === 'io-error') return false;
    await machine.pressPowerButton();
    return await Promise.race([machine.gone.then(() => true), late]);
  } catch (error) {
    // Whoever gives up waiting, or closes the site, wants nobody's power cut.
    if (signal?.aborted || !isFailure(error) || error.kind === 'cancelled') throw error;
    return false;
  } finally {
    waiting.abort();
  }
}
