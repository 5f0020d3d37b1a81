import { type Clock, cancelled } from '../lib/clock.ts';
import type { Failure } from '../lib/errors.ts';

/** A promise and the two ways to settle it; settling twice does nothing. */
export interface Waiting<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

/**
 * Something awaited that ends by an answer, by a time limit, or by a signal, whichever comes first; timer
 * and signal listener are gone when it has settled. `onEnd` is called once, as soon as it settles.
 *
 * The promise may be left unawaited for a while: its rejection does not count as unhandled, and whoever
 * awaits it later still gets it.
 */
export function waitingFor<T>(o: {
  clock: Clock;
  timeoutMs: number;
  onTimeout: () => Failure;
  onEnd?: (how: 'answer' | 'timeout' | 'abort') => void;
  signal?: AbortSignal | undefined;
}): Waiting<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  promise.catch(() => {
    // Whoever awaits the promise gets it; until then it does not count as unhandled.
  });
  let settled = false;
  const end = (how: 'answer' | 'timeout' | 'abort', settle: () => void) => {
    if (settled) return;
    settled = true;
    cancelTimer();
    o.signal?.removeEventListener('abort', onAbort);
    o.onEnd?.(how);
    settle();
  };
  const onAbort = () => end('abort', () => reject(cancelled(o.signal!)));
  const cancelTimer = o.clock.after(o.timeoutMs, () => end('timeout', () => reject(o.onTimeout())));
  if (o.signal?.aborted) onAbort();
  else o.signal?.addEventListener('abort', onAbort, { once: true });
  return {
    promise,
    resolve: (value) => end('answer', () => resolve(value)),
    reject: (error) => end('answer', () => reject(error)),
  };
}

/** The same, when it is known from the start that it fails. */
export function failed<T>(failure: Failure): Promise<T> {
  const promise = Promise.reject<T>(failure);
  promise.catch(() => {
    // As above.
  });
  return promise;
}
