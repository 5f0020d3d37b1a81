/** Runs pieces of asynchronous work one after the other, in the order in which they were asked for. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();
  #closedBy: Error | undefined;

  run<T>(work: () => Promise<T>): Promise<T> {
    const begin = () => {
      if (this.#closedBy) throw this.#closedBy;
      return work();
    };
    const result = this.#last.then(begin, begin);
    // The next one waits for this one's end, however it ends; its failure belongs to its own caller.
    this.#last = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  /** Work that has not begun yet, and all that is asked for later, is refused with `reason`. */
  close(reason: Error): void {
    this.#closedBy = reason;
  }
}
