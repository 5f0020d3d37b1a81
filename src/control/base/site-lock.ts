import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { systemCodeOf } from '../../lib/errors.ts';
import { controlFailure } from '../errors.ts';

/** SQLITE_BUSY: somebody else holds the lock (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5;

/**
 * The right to be the one process of a data directory: an exclusive lock of SQLite on an empty file, held as long as
 * the process lives. It is a lock of the kernel's, so that the death of a process, however it dies, frees it, and there
 * is no stale lock for anybody to judge.
 */
export class SiteLock {
  readonly #lock: DatabaseSync;

  private constructor(lock: DatabaseSync) {
    this.#lock = lock;
  }

  /** Throws SITE_LOCKED if another process, or another object of this one, holds the lock. */
  static take(dataDirectory: string): SiteLock {
    const lock = new DatabaseSync(join(dataDirectory, 'site.lock'), { timeout: 0 });
    try {
      lock.exec('BEGIN EXCLUSIVE');
      return new SiteLock(lock);
    } catch (error) {
      lock.close();
      if (!isBusy(error)) throw error;
      throw controlFailure('SITE_LOCKED', `another process serves ${dataDirectory}`, {
        context: { dataDirectory },
        cause: error,
      });
    }
  }

  release(): void {
    this.#lock.close();
  }
}

function isBusy(error: unknown): boolean {
  return (
    systemCodeOf(error) === 'ERR_SQLITE_ERROR' &&
    (error as Error & { errcode?: number }).errcode === SQLITE_BUSY
  );
}
