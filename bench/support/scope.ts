import type { CleanUp } from '../../test/support/temporary.ts';

/**
 * Runs a bench and then everything that it has registered for the end, the last first, also when it fails. What fails at the
 * end hides neither the bench's own failure nor the rest of the clean-up.
 */
export async function withScope(work: (scope: CleanUp) => Promise<void>): Promise<void> {
  const ends: (() => void | Promise<void>)[] = [];
  const failures: unknown[] = [];
  try {
    await work({ after: (fn) => void ends.unshift(fn) });
  } catch (error) {
    failures.push(error);
  }
  for (const end of ends) {
    try {
      await end();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 1) throw new AggregateError(failures, failures.map(String).join('; '));
  if (failures.length === 1) throw failures[0];
}
