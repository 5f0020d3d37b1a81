import { basename } from 'node:path';
import { type Failure, isFailure, libFailure } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import { Mutex } from '../../lib/mutex.ts';
import { loadRecord, type RecordKind, storeRecord } from '../../lib/records.ts';
import type { AlertSink } from './alerts.ts';

/** What becomes of a record whose file cannot be read: no word of a person's is worth that a site does not start. */
interface WhileUnread<T> {
  /** Told of it, until it opens well again. */
  readonly alerts: AlertSink;
  /** What it is meanwhile, where that is not what it is before anybody has changed it. */
  readonly standIn?: T;
  /** What the site notes for itself goes on in memory; what people change is refused, so that nothing is overwritten. */
  readonly changes?: 'refused' | 'unsaved';
}

/** One record of a site that people change: what is in memory is what is on the disk. */
export class Stored<T extends object> {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #kind: RecordKind<T>;
  readonly #changing = new Mutex();
  /** Why its file could not be read when the site started: the value is a stand-in. */
  readonly unread: Failure | undefined;
  readonly #isUnsaved: boolean;
  #value: T;

  private constructor(
    o: { readonly files: FileSystem; readonly path: string; readonly kind: RecordKind<T>; readonly value: T },
    unread?: { readonly failure: Failure; readonly isUnsaved: boolean },
  ) {
    this.#files = o.files;
    this.#path = o.path;
    this.#kind = o.kind;
    this.#value = o.value;
    this.unread = unread?.failure;
    this.#isUnsaved = unread?.isUnsaved ?? false;
  }

  /** `initial` is what it is before anybody has changed it. Throws RECORD_*, FILE_FAILED where nothing stands in for it. */
  static async open<T extends object>(
    files: FileSystem,
    path: string,
    kind: RecordKind<T>,
    initial: T,
    whileUnread?: WhileUnread<T>,
  ): Promise<Stored<T>> {
    const key = `stored:${basename(path)}`;
    const about = { files, path, kind };
    try {
      const stored = new Stored({ ...about, value: (await loadRecord(files, path, kind)) ?? initial });
      whileUnread?.alerts.clear(key);
      return stored;
    } catch (error) {
      if (!whileUnread || !isFailure(error)) throw error;
      const { alerts, standIn = initial, changes = 'refused' } = whileUnread;
      const failure = mendable(error);
      alerts.raise(key, 'critical', failure);
      return new Stored({ ...about, value: standIn }, { failure, isUnsaved: changes === 'unsaved' });
    }
  }

  get value(): T {
    return this.#value;
  }

  /** For people, who would take a stand-in for what somebody has said. Throws `unread`. */
  get said(): T {
    if (this.unread) throw this.unread;
    return this.#value;
  }

  /** Durable on return; one change after the other. Nothing is written where `next` gives back what there was. Throws `unread`. */
  change(next: (before: T) => T): Promise<T> {
    return this.#changing.run(async () => {
      if (this.unread && !this.#isUnsaved) throw this.unread;
      const value = next(this.#value);
      if (value !== this.#value && !this.unread) {
        await storeRecord(this.#files, this.#path, this.#kind, value);
      }
      this.#value = value;
      return value;
    });
  }
}

/** The damaged file of a person's words is not rebuilt by anything, and one that can be read again is not looked at before the next start. */
const MENDED_BY = {
  RECORD_CORRUPT:
    'Put the file back from a copy of the data directory, or move it away to begin anew, and start the site again; until then nothing is written to it.',
  FILE_UNREADABLE:
    'Check the rights and the health of the file system that holds the path, and start the site again; until then changes of it are refused, also when the file can be read again.',
} as const;

function mendable(failure: Failure): Failure {
  for (const code of ['RECORD_CORRUPT', 'FILE_UNREADABLE'] as const) {
    if (!isFailure(failure, code)) continue;
    const { message, context } = failure;
    return libFailure(code, message, { context, cause: failure, hint: MENDED_BY[code] });
  }
  return failure;
}
