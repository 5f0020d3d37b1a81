import type { RunningMachine } from '../hypervisor/index.ts';
import type { FileSystem } from '../lib/files.ts';
import type { Log } from '../lib/log.ts';
import { Mutex } from '../lib/mutex.ts';
import { loadRecord, storeRecord } from '../lib/records.ts';
import type { Hooks } from '../recovery-point/index.ts';
import { OWED_HOOKS_RECORD, type OwedHooksRecord } from './records.ts';

/**
 * The hooks that must still run because the first one of a copy has begun, or may have. The record is durable before that, and goes
 * when they have run: what a process of ours leaves behind that was killed, the next one ends.
 */
export class OwedHooks {
  readonly #files: FileSystem;
  readonly #path: string;
  readonly #log: Log;
  readonly #running = new Mutex();
  #record: OwedHooksRecord | undefined;

  private constructor(o: { files: FileSystem; path: string; log: Log; record: OwedHooksRecord | undefined }) {
    this.#files = o.files;
    this.#path = o.path;
    this.#log = o.log;
    this.#record = o.record;
  }

  static async open(files: FileSystem, path: string, log: Log): Promise<OwedHooks> {
    return new OwedHooks({ files, path, log, record: await loadRecord(files, path, OWED_HOOKS_RECORD) });
  }

  get exist(): boolean {
    return this.#record !== undefined;
  }

  /** From now on these are owed, and nothing else. Durable on return. */
  async owe(cutId: string, { after, onFailure }: Hooks): Promise<void> {
    const record = { cutId, ...(after ? { after } : {}), ...(onFailure ? { onFailure } : {}) };
    if (after || onFailure) {
      await storeRecord(this.#files, this.#path, OWED_HOOKS_RECORD, record);
      this.#record = record;
    } else if (this.#record) {
      await this.#files.remove(this.#path);
      this.#record = undefined;
    }
  }

  /** Runs what an earlier copy owes. Returns why it could not, if it could not; it is still owed then. */
  settle(running: Pick<RunningMachine, 'runInGuest'>): Promise<string | undefined> {
    return this.#running.run(async () => {
      for (const hook of ['after', 'onFailure'] as const) {
        const { cutId, ...left } = this.#record ?? { cutId: '' };
        const program = left[hook];
        if (!program) continue;
        const report = await running.runInGuest(program);
        this.#log.warn('hook.made-up', { cutId, hook, ...report });
        if (report.outcome === 'not-begun') {
          return `the hooks of an interrupted copy could not be run: ${report.reason}`;
        }
        await this.owe(cutId, { ...left, [hook]: undefined });
      }
      return undefined;
    });
  }
}
