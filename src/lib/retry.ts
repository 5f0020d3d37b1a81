import { type Clock, sleep } from './clock.ts';
import { Failure } from './errors.ts';
import { type Random, randomBelow } from './random.ts';

export interface Backoff {
  readonly firstMs: number;
  readonly maximumMs: number;
  /** Give up after this many tries; Infinity for work that must not be given up. */
  readonly triesMax: number;
}

/** The pause before try number `attempt` (1 = first repetition): doubling, capped, with full jitter. */
export function pauseMs(backoff: Backoff, attempt: number, random: Random): number {
  const ceiling = Math.min(backoff.maximumMs, backoff.firstMs * 2 ** Math.min(attempt - 1, 30));
  return Math.max(1, Math.floor(ceiling / 2) + randomBelow(random, Math.ceil(ceiling / 2)));
}

/**
 * Repeats `work` while it throws a Failure whose `retry` is not `never`. Anything else (a bug, a corruption,
 * a refusal) is thrown at once. `onRetry` is told about each failure before the pause.
 */
export async function retrying<T>(
  tools: { clock: Clock; random: Random },
  backoff: Backoff,
  work: (attempt: number) => Promise<T>,
  options: { signal?: AbortSignal; onRetry?: (failure: Failure, pauseMs: number) => void } = {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work(attempt);
    } catch (error) {
      if (!(error instanceof Failure) || error.retry === 'never' || attempt >= backoff.triesMax) throw error;
      const pause = pauseMs(backoff, attempt, tools.random);
      options.onRetry?.(error, pause);
      await sleep(tools.clock, pause, options.signal);
    }
  }
}
