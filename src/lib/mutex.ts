/** Runs pieces of asynchronous work one after the other, in the order in which they were asked for. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work, work);
    // The next one waits for this one's end, however it ends; its failure belongs to its own caller.
    this.#last = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }
}
