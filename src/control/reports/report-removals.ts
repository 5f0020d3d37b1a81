import { join } from 'node:path';
import { messageOf } from '../../lib/errors.ts';
import type { FileSystem } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { isId } from '../../lib/random.ts';
import { decideRemoval, removalsIn, withdrawRemoval } from '../../lib/removal.ts';

/**
 * Reports that were removed, each with a sign beside the place where it was: durable before the report goes, and there for as long as the
 * report could be made up again from its job.
 */
export class ReportRemovals {
  readonly #files: FileSystem;
  readonly #log: Log;
  readonly #directory: string;
  readonly #removed = new Set<string>();

  constructor({ files, log }: { files: FileSystem; log: Log }, directory: string) {
    this.#files = files;
    this.#log = log;
    this.#directory = directory;
  }

  /** Ends what was cut short. One that cannot be ended hinders nothing: it counts as removed, and is tried again at the next start. */
  async open(): Promise<void> {
    for (const name of removalsIn((await this.#files.list(this.#directory)) ?? [])) {
      const reportId = name.replace(/\.json$/, '');
      if (!isId(reportId)) continue;
      this.#removed.add(reportId);
      try {
        await this.end(reportId);
      } catch (error) {
        this.#log.error('report.not-removed', { reportId, reason: messageOf(error) });
      }
    }
  }

  has(reportId: string): boolean {
    return this.#removed.has(reportId);
  }

  /** From now on there is no such report. Durable on return. */
  async begin(reportId: string): Promise<void> {
    await decideRemoval(this.#files, this.#path(reportId));
    this.#removed.add(reportId);
  }

  /** May be repeated. */
  async end(reportId: string): Promise<void> {
    // A process that was killed may have left the sign in the page cache alone.
    await this.#files.syncDirectory(this.#directory);
    await this.#files.remove(this.#path(reportId));
    await this.#files.syncDirectory(this.#directory);
  }

  /** The others cannot be made up again: their signs go, if they have gone themselves. Never rejects: the next process does what this one cannot. */
  async forgetBut(needed: ReadonlySet<string>): Promise<void> {
    for (const reportId of [...this.#removed].filter((one) => !needed.has(one))) {
      const path = this.#path(reportId);
      try {
        if ((await this.#files.sizeOf(path)) !== undefined) continue;
        await withdrawRemoval(this.#files, path);
        this.#removed.delete(reportId);
      } catch (error) {
        this.#log.warn('report.sign-not-removed', { reportId, reason: messageOf(error) });
      }
    }
  }

  #path(reportId: string): string {
    return join(this.#directory, `${reportId}.json`);
  }
}
