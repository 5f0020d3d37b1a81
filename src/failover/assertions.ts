import type { RunningMachine } from '../hypervisor/index.ts';
import { type Clock, throwIfAborted } from '../lib/clock.ts';
import type { Assertion } from '../recovery-point/index.ts';

/** How one assertion of a point ended. Output and reasons are a guest's words. */
export interface AssertionReport {
  readonly name: string;
  /** `not-run`: the guest agent could not begin it, which says nothing about the point. */
  readonly outcome: 'held' | 'failed' | 'not-run';
  readonly tookMs: number;
  readonly exitCode?: number;
  readonly output?: string;
  readonly reason?: string;
}

/** What the assertions say together: one that failed refutes the claim; one that did not run leaves it open. */
export type ClaimVerdict = 'held' | 'failed' | 'open';

/**
 * Asks a guest that has been booted from a point whether the claims of the point hold, one after the other and in their order.
 * An assertion holds if its program ends with exit code 0.
 */
export async function runAssertions(
  machine: Pick<RunningMachine, 'runInGuest'>,
  assertions: readonly Assertion[],
  clock: Clock,
  signal?: AbortSignal,
): Promise<AssertionReport[]> {
  const reports: AssertionReport[] = [];
  for (const { name, ...program } of assertions) {
    throwIfAborted(signal);
    const sinceMs = clock.monotonicMs();
    const ended = await machine.runInGuest(program);
    const tookMs = Math.round(clock.monotonicMs() - sinceMs);
    if (ended.outcome === 'ended') {
      const { exitCode, output } = ended;
      reports.push({ name, tookMs, exitCode, output, outcome: exitCode === 0 ? 'held' : 'failed' });
    } else {
      const outcome = ended.outcome === 'lost' ? 'failed' : 'not-run';
      reports.push({ name, tookMs, outcome, reason: ended.reason });
    }
  }
  return reports;
}

/** Pure. Undefined where nothing was claimed. */
export function claimVerdictOf(reports: readonly AssertionReport[]): ClaimVerdict | undefined {
  if (reports.length === 0) return undefined;
  if (reports.some(({ outcome }) => outcome === 'failed')) return 'failed';
  return reports.every(({ outcome }) => outcome === 'held') ? 'held' : 'open';
}
