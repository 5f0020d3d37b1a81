import type { DatabaseSync } from 'node:sqlite';
import type { JobView, Progress } from '../api/index.ts';
import { type Clock, cancelled } from '../lib/clock.ts';
import { Failure, type FailureRecord, isFailure, messageOf } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { newId, type Random } from '../lib/random.ts';
import { failureOf } from './alerts.ts';
import type { Audit, AuditedAct } from './audit.ts';
import { unlessFull } from './database.ts';
import { controlFailure } from './errors.ts';
import type { EventHub } from './event-hub.ts';

export type JobKind = JobView['kind'];
export type JobArgs = Readonly<Record<string, unknown>>;

export interface JobContext {
  readonly jobId: string;
  /** The machine that the job is about. */
  readonly machineId: string;
  readonly args: JobArgs;
  /** Aborted when somebody cancels the job, and when the site closes. */
  readonly signal: AbortSignal;
  /** Shows how far the job is; cheap, may be called often. */
  progress(progress: Progress): void;
}

/** How jobs of one kind are done. */
export interface JobHandler {
  /** Doing it again after a process ended in the middle does no harm: it is done again by itself. */
  readonly repeatable: boolean;
  /** It may wait long for somebody or something, and takes no turn from others. */
  readonly waits?: boolean;
  /** Returns plain JSON. */
  run(context: JobContext): Promise<unknown>;
}

export interface JobRequest {
  readonly kind: JobKind;
  readonly args: JobArgs;
  readonly actor: string;
  readonly machineId: string;
}

interface Running {
  readonly waits: boolean;
  readonly controller: AbortController;
  progress: Progress;
  ended: Promise<void>;
  toldAtMs: number;
}

/** So many jobs run at a time; the others wait in the order in which they came. */
const RUNNING_MAX = 4;
/** Progress is told to listeners at most this often. */
const PROGRESS_EVERY_MS = 250;
const LISTED_MAX = 500;
/** Longer than any work: a wait is begun again. */
const WAIT_MS = 3_600_000;

/**
 * Long acts of the site, as records that survive its process. A job ends in `done`, `failed` or `cancelled`, once. One that
 * was running when the process ended is begun again if its kind is repeatable, and failed with JOB_INTERRUPTED otherwise.
 */
export class Jobs {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #events: EventHub;
  readonly #audit: Audit;
  readonly #handlers: Readonly<Record<JobKind, JobHandler>>;
  readonly #running = new Map<string, Running>();
  #isOpen = false;

  constructor(o: {
    database: DatabaseSync;
    clock: Clock;
    random: Random;
    log: Log;
    events: EventHub;
    audit: Audit;
    handlers: Readonly<Record<JobKind, JobHandler>>;
  }) {
    this.#database = o.database;
    this.#clock = o.clock;
    this.#random = o.random;
    this.#log = o.log;
    this.#events = o.events;
    this.#audit = o.audit;
    this.#handlers = o.handlers;
  }

  /** Begins to work, with what an earlier process left. */
  open(): void {
    this.#isOpen = true;
    for (const job of this.#byState('running')) {
      if (this.#handlers[job.kind].repeatable) this.#update(job.jobId, { state: 'queued' });
      else this.#end(job, controlFailure('JOB_INTERRUPTED', 'the site process ended while the job ran'));
    }
    this.#startNext();
  }

  /** Stops the work; jobs that ran are taken up by the next process. */
  async close(): Promise<void> {
    this.#isOpen = false;
    const ends = [...this.#running.values()].map(({ controller, ended }) => {
      controller.abort(controlFailure('JOB_INTERRUPTED', 'the site is shutting down'));
      return ended;
    });
    await Promise.all(ends);
  }

  start(request: JobRequest): JobView {
    const jobId = newId(this.#clock, this.#random);
    const intent = this.#audit.begin(actOf(request, jobId));
    const insert = this.#database.prepare(
      `INSERT INTO jobs (job_id, kind, state, machine_id, actor, args, created_at_ms, intent)
       VALUES (?, ?, 'queued', ?, ?, ?, ?, ?)`,
    );
    unlessFull(() =>
      insert.run(
        ...[jobId, request.kind, request.machineId, request.actor, JSON.stringify(request.args)],
        ...[this.#clock.wallMs(), intent],
      ),
    );
    this.#startNext();
    return this.get(jobId);
  }

  find(jobId: string): JobView | undefined {
    const row = this.#database.prepare('SELECT * FROM jobs WHERE job_id = ?').get(jobId);
    return row && this.#viewOf(row);
  }

  /** Throws JOB_UNKNOWN. */
  get(jobId: string): JobView {
    const job = this.find(jobId);
    if (job) return job;
    throw controlFailure('JOB_UNKNOWN', `there is no job ${jobId}`, { context: { jobId } });
  }

  /** The newest first. */
  list(): JobView[] {
    return this.#database
      .prepare('SELECT * FROM jobs ORDER BY rowid DESC LIMIT ?')
      .all(LISTED_MAX)
      .map((row) => this.#viewOf(row));
  }

  /** Asks the job to end; one that has ended stays as it is. */
  cancel(jobId: string): JobView {
    const job = this.get(jobId);
    const running = this.#running.get(jobId);
    if (running) running.controller.abort();
    else if (job.state === 'queued') this.#end(job, cancelled(AbortSignal.abort()));
    return this.get(jobId);
  }

  /** The job once it has ended, or as it stands after `waitMs`. */
  async waitFor(jobId: string, waitMs: number, signal: AbortSignal): Promise<JobView> {
    if (hasEnded(this.get(jobId)) || waitMs <= 0) return this.get(jobId);
    await new Promise<void>((resolve) => {
      const end = (): void => {
        cancelTimer();
        stopListening();
        signal.removeEventListener('abort', end);
        resolve();
      };
      const cancelTimer = this.#clock.after(waitMs, end);
      const stopListening = this.#events.listen((event) => {
        if (event.event === 'job' && event.job.jobId === jobId && hasEnded(event.job)) end();
      });
      signal.addEventListener('abort', end, { once: true });
    });
    return this.get(jobId);
  }

  /** The job once it has ended, however long that takes; undefined if `signal` is aborted before. */
  async endOf(jobId: string, signal: AbortSignal): Promise<JobView | undefined> {
    while (!signal.aborted) {
      const job = await this.waitFor(jobId, WAIT_MS, signal);
      if (hasEnded(job)) return job;
    }
    return undefined;
  }

  /** The newest job that somebody has begun about a machine. */
  newestOf(actor: string, machineId: string): JobView | undefined {
    const row = this.#database
      .prepare('SELECT * FROM jobs WHERE actor = ? AND machine_id = ? ORDER BY rowid DESC LIMIT 1')
      .get(actor, machineId);
    return row && this.#viewOf(row);
  }

  #startNext(): void {
    if (!this.#isOpen) return;
    for (const job of this.#byState('queued')) {
      if (this.#running.has(job.jobId)) continue;
      if (this.#handlers[job.kind].waits || this.#busy < RUNNING_MAX) this.#run(job);
    }
  }

  /** How many run that do not wait. */
  get #busy(): number {
    return [...this.#running.values()].filter(({ waits }) => !waits).length;
  }

  #run(job: JobView): void {
    const running: Running = {
      waits: this.#handlers[job.kind].waits ?? false,
      controller: new AbortController(),
      progress: {},
      ended: Promise.resolve(),
      toldAtMs: this.#clock.monotonicMs(),
    };
    this.#running.set(job.jobId, running);
    this.#update(job.jobId, { state: 'running', started_at_ms: this.#clock.wallMs() });
    running.ended = this.#work(job, running).finally(() => {
      this.#running.delete(job.jobId);
      this.#startNext();
    });
  }

  /** Never rejects. */
  async #work(job: JobView, running: Running): Promise<void> {
    try {
      const result = await this.#handlers[job.kind].run({
        jobId: job.jobId,
        machineId: job.machineId,
        args: job.args,
        signal: running.controller.signal,
        progress: (progress) => this.#show(job.jobId, running, progress),
      });
      this.#end(job, undefined, result);
    } catch (error) {
      // A job that ended because the site closes is not over: the next process takes it up.
      if (!this.#isOpen) return;
      if (!isFailure(error)) this.#log.error('job.broke', { jobId: job.jobId, kind: job.kind, error });
      const wasCancelled = running.controller.signal.aborted;
      this.#end(job, wasCancelled ? cancelled(running.controller.signal) : error);
    }
  }

  #show(jobId: string, running: Running, progress: Progress): void {
    running.progress = progress;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - running.toldAtMs < PROGRESS_EVERY_MS) return;
    running.toldAtMs = nowMs;
    this.#tell(jobId);
  }

  #end(job: JobView, error: unknown, result?: unknown): void {
    const failure = error === undefined ? undefined : failureOf(error).toJSON();
    const state = failure === undefined ? 'done' : failure.code === 'CANCELLED' ? 'cancelled' : 'failed';
    const row = this.#database.prepare('SELECT intent FROM jobs WHERE job_id = ?').get(job.jobId);
    this.#audit.end(Number(row!.intent), actOf(job, job.jobId), error);
    this.#update(job.jobId, {
      state,
      ended_at_ms: this.#clock.wallMs(),
      result: result === undefined ? null : JSON.stringify(result),
      failure: failure === undefined ? null : JSON.stringify(failure),
    });
    const why = error instanceof Failure ? { code: error.code, reason: messageOf(error) } : {};
    this.#log.info('job.ended', { jobId: job.jobId, kind: job.kind, state, ...why });
  }

  #update(jobId: string, change: Readonly<Record<string, string | number | null>>): void {
    const names = Object.keys(change);
    const set = names.map((name) => `${name} = ?`).join(', ');
    try {
      const statement = this.#database.prepare(`UPDATE jobs SET ${set} WHERE job_id = ?`);
      unlessFull(() => statement.run(...Object.values(change), jobId));
    } catch (error) {
      // The work itself is not undone by that; where its end is unknown, the next process takes it up.
      if (!isFailure(error, 'SITE_DATABASE_FULL')) throw error;
      this.#log.error('job.unsaved', { jobId, ...change });
    }
    this.#tell(jobId);
  }

  #tell(jobId: string): void {
    this.#events.emit({ event: 'job', job: this.get(jobId) });
  }

  #byState(state: JobView['state']): JobView[] {
    return this.#database
      .prepare('SELECT * FROM jobs WHERE state = ? ORDER BY rowid')
      .all(state)
      .map((row) => this.#viewOf(row));
  }

  #viewOf(row: Record<string, unknown>): JobView {
    const jobId = String(row.job_id);
    const parsed = (text: unknown): unknown => JSON.parse(String(text));
    return {
      jobId,
      kind: row.kind as JobKind,
      state: row.state as JobView['state'],
      machineId: String(row.machine_id),
      args: parsed(row.args) as JobView['args'],
      actor: String(row.actor),
      createdAtMs: Number(row.created_at_ms),
      ...(row.started_at_ms === null ? {} : { startedAtMs: Number(row.started_at_ms) }),
      ...(row.ended_at_ms === null ? {} : { endedAtMs: Number(row.ended_at_ms) }),
      progress: this.#running.get(jobId)?.progress ?? {},
      ...(row.result === null ? {} : { result: parsed(row.result) }),
      ...(row.failure === null ? {} : { failure: parsed(row.failure) as JobView['failure'] & FailureRecord }),
    };
  }
}

export function hasEnded(job: JobView): boolean {
  return job.state === 'done' || job.state === 'failed' || job.state === 'cancelled';
}

function actOf(job: Pick<JobView, 'kind' | 'args' | 'actor' | 'machineId'>, jobId: string): AuditedAct {
  return {
    actor: job.actor,
    act: job.kind,
    subject: job.machineId,
    details: { jobId, ...job.args },
  };
}
