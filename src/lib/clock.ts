import { performance } from 'node:perf_hooks';
import { libFailure } from './errors.ts';

/**
 * Time, passed in wherever it matters so that a seeded simulation can turn it.
 *
 * Order is never decided by the wall clock; it labels things for people. Timers and deadlines use the
 * monotonic clock, which neither jumps nor goes back.
 */
export interface Clock {
  /** Milliseconds since the Unix epoch. May jump in both directions. */
  wallMs(): number;
  /** Milliseconds since some fixed instant. Never goes back. */
  monotonicMs(): number;
  /** Calls `fn` once after `delayMs`; the returned function cancels it. */
  after(delayMs: number, fn: () => void): () => void;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, Math.min(Math.max(0, delayMs), 2 ** 31 - 1));
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delayMs`; rejects with CANCELLED as soon as `signal` is aborted. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    const onAbort = () => {
      cancel();
      reject(cancelled(signal!));
    };
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/**
 * The result of `work`, or the failure that `onTimeout` makes when it has not settled after `limitMs`.
 * `work` receives a signal that is aborted at that moment, so that it can let go of what it holds.
 */
export async function withTimeout<T>(
  clock: Clock,
  limitMs: number,
  work: (signal: AbortSignal) => Promise<T>,
  onTimeout: () => Error,
  outer?: AbortSignal,
): Promise<T> {
  const controller = new AbortController();
  const signal = outer ? AbortSignal.any([outer, controller.signal]) : controller.signal;
  let cancelTimer: () => void = () => undefined;
  const timeout = new Promise<never>((_, reject) => {
    cancelTimer = clock.after(limitMs, () => {
      reject(onTimeout());
      controller.abort();
    });
  });
  try {
    return await Promise.race([work(signal), timeout]);
  } finally {
    cancelTimer();
  }
}

/** The failure that an aborted signal stands for. */
export function cancelled(signal: AbortSignal): Error {
  return signal.reason instanceof Error && signal.reason.name !== 'AbortError'
    ? signal.reason
    : libFailure('CANCELLED', 'the work was cancelled');
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled(signal);
}
