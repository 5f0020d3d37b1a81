import { cancelled } from '../../lib/clock.ts';

/** Wakes everybody who waits for something to have changed; what has changed, each looks at for itself. */
export class News {
  readonly #waiting = new Set<() => void>();

  /** Resolves with the next word. Throws CANCELLED. */
  async next(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw cancelled(signal);
    await new Promise<void>((resolve) => {
      const end = (): void => {
        this.#waiting.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      this.#waiting.add(end);
      signal.addEventListener('abort', end, { once: true });
    });
    if (signal.aborted) throw cancelled(signal);
  }

  tell(): void {
    for (const told of [...this.#waiting]) told();
  }
}
