import type { RunningMachine } from '../hypervisor/index.ts';
import { sleep } from '../lib/clock.ts';
import { isFailure } from '../lib/errors.ts';
import type { FailoverTools } from './tools.ts';

/** Presses the power button of a machine and waits for its end. False: it has not ended in time, or could not be asked. */
export async function shutsDown(
  { clock }: Pick<FailoverTools, 'clock'>,
  machine: Pick<RunningMachine, 'pressPowerButton' | 'state' | 'gone'>,
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
    // A guest that stands still would not see its button pressed.
    const state = await machine.state();
    if (state === 'paused' || state === 'io-error') return false;
    await machine.pressPowerButton();
    return await Promise.race([machine.gone.then(() => true), late]);
  } catch (error) {
    if (!isFailure(error) || error.kind === 'cancelled') throw error;
    return false;
  } finally {
    waiting.abort();
  }
}
