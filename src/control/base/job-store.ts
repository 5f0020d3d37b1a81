import type { DatabaseSync } from 'node:sqlite';
import type { JobView } from '../../api/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { type FailureRecord, isFailure } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { unlessFull } from './database.ts';

export type JobKind = JobView['kind'];

/** A job as it is stored, by the columns of its table. */
export type JobRow = Readonly<Record<string, unknown>>;

/** What changes of a job. */
export type JobChange = Readonly<
  Partial<Record<'state' | 'started_at_ms' | 'ended_at_ms' | 'result' | 'failure', string | number | null>>
>;

interface NewJob extends Pick<JobView, 'jobId' | 'kind' | 'machineId' | 'actor' | 'args' | 'createdAtMs'> {
  readonly intent: number;
}

/** What found no room is stored again after this time, until there is some. */
const SAVE_AGAIN_AFTER_MS = 2_000;

/**
 * The jobs of a site in its database. What becomes of a job cannot be refused: where there is no room to store that, it is kept in memory,
 * counts as if it were stored, and is stored when there is room. No job is added before, so that no job ever began after one whose end is lost.
 */
export class JobStore {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #unsaved = new Map<string, JobChange>();
  #cancelAgain: (() => void) | undefined;

  constructor(o: { database: DatabaseSync; clock: Clock; log: Log }) {
    this.#database = o.database;
    this.#clock = o.clock;
    this.#log = o.log;
  }

  /** Stores what could not be stored before. Throws SITE_DATABASE_FULL. */
  save(): void {
    for (const [jobId, change] of [...this.#unsaved]) {
      const set = Object.keys(change).map((name) => `${name} = ?`);
      const statement = this.#database.prepare(`UPDATE jobs SET ${set.join(', ')} WHERE job_id = ?`);
      unlessFull(() => statement.run(...Object.values(change), jobId));
      this.#unsaved.delete(jobId);
    }
    this.#cancelAgain?.();
    this.#cancelAgain = undefined;
  }

  /** Durable on return, in the state `queued`. Throws SITE_DATABASE_FULL. */
  add({ jobId, kind, machineId, actor, args, createdAtMs, intent }: NewJob): void {
    this.save();
    const insert = this.#database.prepare(
      `INSERT INTO jobs (job_id, kind, state, machine_id, actor, args, created_at_ms, intent)
       VALUES (?, ?, 'queued', ?, ?, ?, ?, ?)`,
    );
    unlessFull(() => insert.run(jobId, kind, machineId, actor, JSON.stringify(args), createdAtMs, intent));
  }

  /** Durable on return if there is room. */
  change(jobId: string, change: JobChange): void {
    this.#unsaved.set(jobId, { ...this.#unsaved.get(jobId), ...change });
    try {
      this.save();
    } catch (error) {
      if (!isFailure(error, 'SITE_DATABASE_FULL')) throw error;
      this.#log.error('job.unsaved', { jobId, ...change });
      this.#saveLater();
    }
  }

  #saveLater(): void {
    this.#cancelAgain ??= this.#clock.after(SAVE_AGAIN_AFTER_MS, () => {
      this.#cancelAgain = undefined;
      try {
        this.save();
        this.#log.info('job.all-saved', {});
      } catch (error) {
        if (!isFailure(error, 'SITE_DATABASE_FULL')) throw error;
        this.#saveLater();
      }
    });
  }

  /** Stores what can be stored; the ends of other jobs are lost, and the next process takes those for jobs that were interrupted. */
  close(): void {
    try {
      this.save();
    } catch (error) {
      if (!isFailure(error, 'SITE_DATABASE_FULL')) throw error;
      this.#log.error('job.ends-lost', { jobs: [...this.#unsaved.keys()].join(', ') });
    }
    this.#cancelAgain?.();
  }

  find(jobId: string): JobRow | undefined {
    return this.#rows('WHERE job_id = ?', jobId)[0];
  }

  /** The newest first. */
  newest(most: number): JobRow[] {
    return this.#rows('ORDER BY rowid DESC LIMIT ?', most);
  }

  /** Jobs of a kind about a machine, the newest first. */
  ofMachine(kind: JobKind, machineId: string, most: number): JobRow[] {
    return this.#rows('WHERE kind = ? AND machine_id = ? ORDER BY rowid DESC LIMIT ?', kind, machineId, most);
  }

  /** The newest job that somebody has begun about a machine. */
  newestOf(actor: string, machineId: string): JobRow | undefined {
    return this.#rows('WHERE actor = ? AND machine_id = ? ORDER BY rowid DESC LIMIT 1', actor, machineId)[0];
  }

  /** In the order in which they came. */
  inState(state: 'queued' | 'running'): JobRow[] {
    const stored = `WHERE state = ? OR ${IS_UNSAVED} ORDER BY rowid`;
    return this.#rows(stored, state, this.#unsavedIds).filter((row) => row.state === state);
  }

  /** The newest first. */
  ended(most: number): JobRow[] {
    const stored = `WHERE state NOT IN ('queued', 'running') OR ${IS_UNSAVED} ORDER BY rowid DESC LIMIT ?`;
    return this.#rows(stored, this.#unsavedIds, most).filter(isOver);
  }

  get #unsavedIds(): string {
    return JSON.stringify([...this.#unsaved.keys()]);
  }

  #rows(where: string, ...values: readonly (string | number)[]): JobRow[] {
    const rows: JobRow[] = this.#database.prepare(`SELECT * FROM jobs ${where}`).all(...values);
    return rows.map((row) => ({ ...row, ...this.#unsaved.get(String(row.job_id)) }));
  }
}

const IS_UNSAVED = 'job_id IN (SELECT value FROM json_each(?))';

function isOver({ state }: JobRow): boolean {
  return state !== 'running' && state !== 'queued';
}

export function viewOf(row: JobRow, progress: JobView['progress']): JobView {
  const parsed = (text: unknown): unknown => JSON.parse(String(text));
  const has = (value: unknown): boolean => isOver(row) && value !== null;
  return {
    jobId: String(row.job_id),
    kind: row.kind as JobKind,
    state: row.state as JobView['state'],
    machineId: String(row.machine_id),
    args: parsed(row.args) as JobView['args'],
    actor: String(row.actor),
    createdAtMs: Number(row.created_at_ms),
    ...(row.started_at_ms === null ? {} : { startedAtMs: Number(row.started_at_ms) }),
    ...(has(row.ended_at_ms) ? { endedAtMs: Number(row.ended_at_ms) } : {}),
    progress,
    ...(has(row.result) ? { result: parsed(row.result) } : {}),
    ...(has(row.failure) ? { failure: parsed(row.failure) as JobView['failure'] & FailureRecord } : {}),
  };
}
