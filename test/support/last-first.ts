import type { CleanUp } from './temporary.ts';

/**
 * Cleans up in the reverse order, each step also after another has failed. `node:test` goes in the order in which steps
 * were given and stops at the first that fails, so that a directory would be removed below whoever still writes there.
 */
export function lastFirst(t: CleanUp): CleanUp {
  const steps = new AsyncDisposableStack();
  t.after(() => steps.disposeAsync());
  return { after: (fn) => steps.defer(fn) };
}
