/**
 * One event that may overtake many waits: the end of a connection, say, while a stream is copied chunk by chunk.
 *
 * `Promise.race` against a promise that lives as long as the stream would leave one reaction behind per chunk;
 * this leaves none. One wait at a time.
 */
export class Stop {
  #reason: { readonly error: Error } | undefined;
  #overtake: ((error: Error) => void) | undefined;

  /** The first reason given; undefined while nothing has stopped. */
  get reason(): Error | undefined {
    return this.#reason?.error;
  }

  /** Ends the wait under way and all later ones with `error`. The first call counts. */
  now(error: Error): void {
    if (this.#reason) return;
    this.#reason = { error };
    this.#overtake?.(error);
  }

  /** The result of `work`, or the reason thrown as soon as there is one. */
  async or<T>(work: Promise<T>): Promise<T> {
    if (this.#reason) {
      // Nobody waits for the work any more; its failure has nowhere to go.
      work.catch(() => undefined);
      throw this.#reason.error;
    }
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#overtake = reject;
        work.then(resolve, reject);
      });
    } finally {
      this.#overtake = undefined;
    }
  }
}
