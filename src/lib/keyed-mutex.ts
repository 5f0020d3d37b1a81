import { Mutex } from './mutex.ts';

/** As many mutexes as there are keys: what concerns one thing waits for nothing that concerns another. */
export class KeyedMutex {
  readonly #mutexes = new Map<string, Mutex>();

  run<T>(key: string, work: () => Promise<T>): Promise<T> {
    let mutex = this.#mutexes.get(key);
    if (!mutex) {
      mutex = new Mutex();
      this.#mutexes.set(key, mutex);
    }
    return mutex.run(work);
  }
}
