/**
 * A programmer's error: the process must end rather than go on with a state that nobody thought of.
 * Never used on bytes that came from outside; those get a `Failure`.
 */
class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}
