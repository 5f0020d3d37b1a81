import type { FileSystem } from '../../lib/files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { loadRecord, type RecordKind, storeRecord } from '../../lib/records.ts';

/** One record of a site that people change: what is in memory is what is on the disk. */
export class Stored<T extends object> {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #kind: RecordKind<T>;
  readonly #changing = new Mutex();
  #value: T;

  private constructor(files: FileSystem, path: string, kind: RecordKind<T>, value: T) {
    this.#files = files;
    this.#path = path;
    this.#kind = kind;
    this.#value = value;
  }

  /** `initial` is what it is before anybody has changed it. Throws RECORD_*. */
  static async open<T extends object>(
    files: FileSystem,
    path: string,
    kind: RecordKind<T>,
    initial: T,
  ): Promise<Stored<T>> {
    return new Stored(files, path, kind, (await loadRecord(files, path, kind)) ?? initial);
  }

  get value(): T {
    return this.#value;
  }

  /** Durable on return; one change after the other. Nothing is written where `next` gives back what there was. */
  change(next: (before: T) => T): Promise<T> {
    return this.#changing.run(async () => {
      const value = next(this.#value);
      if (value !== this.#value) await storeRecord(this.#files, this.#path, this.#kind, value);
      this.#value = value;
      return value;
    });
  }
}
