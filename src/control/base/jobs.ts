import type { DatabaseSync } from 'node:sqlite';
import type { JobView, Progress } from '../../api/index.ts';
import { type Clock, cancelled } from '../../lib/clock.ts';
import { Failure, type FailureRecord, isFailure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { newId, type Random } from '../../lib/random.ts';
import { controlFailure } from '../errors.ts';
import { failureOf } from './alerts.ts';
import type { Audit, AuditedAct } from './audit.ts';
import type { EventHub } from './event-hub.ts';
import { type JobChange, type JobKind, type JobRow, JobStore, viewOf } from './job-store.ts';

export type { JobKind } from './job-store.ts';
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
  /** One that was cancelled, and whose process ended before it had ended, is done again with a signal that is aborted: to take back what it has begun. */
  readonly unwinds?: boolean;
  /** It may wait long for somebody or something, or a machine is down until it is done: it takes no turn from others, and waits for none. */
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

/** What a job said that it was doing, and since when. */
export interface JobStep {
  readonly step: string;
  readonly beganAtMs: number;
}

/** A job whose work is over, as it is about to end. */
export interface EndingJob {
  readonly job: JobView;
  /** What it said of its steps, as far as this process has heard it. */
  readonly steps: readonly JobStep[];
  /** Of the audit entry by which it began. */
  readonly intent: number;
}

/** Keeps something of jobs that outlives them. */
export interface JobRecorder {
  wants(kind: JobKind): boolean;
  /** Called again for the same job after a process that ended in the middle; never rejects. The job has ended when it resolves. */
  record(ending: EndingJob): Promise<void>;
}

interface Running {
  readonly waits: boolean;
  readonly controller: AbortController;
  progress: Progress;
  ended: Promise<void>;
  toldAtMs: number;
  readonly steps: JobStep[];
}

/** So many jobs run at a time; the others wait in the order in which they came. */
const RUNNING_MAX = 4;
/** Progress is told to listeners at most this often. */
const PROGRESS_EVERY_MS = 250;
const LISTED_MAX = 500;
/** More steps of one job are not kept. */
const STEPS_MAX = 200;
/** Longer than any work: a wait is begun again. */
const WAIT_MS = 3_600_000;

/**
 * Long acts of the site, as records that survive its process. A job ends in `done`, `failed` or `cancelled`, once. One that
 * was running when the process ended, or waited, is begun again if its kind is repeatable, and failed with JOB_INTERRUPTED otherwise;
 * one that somebody had cancelled by then is not gone on with.
 */
export class Jobs {
  readonly #store: JobStore;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #log: Log;
  readonly #events: EventHub;
  readonly #audit: Audit;
  readonly #handlers: Readonly<Record<JobKind, JobHandler>>;
  readonly #recorder: JobRecorder | undefined;
  readonly #running = new Map<string, Running>();
  /** Jobs that an earlier process has brought to their end, but not to its record. */
  readonly #finishing = new Set<Promise<void>>();
  #isOpen = false;

  constructor(o: {
    database: DatabaseSync;
    clock: Clock;
    random: Random;
    log: Log;
    events: EventHub;
    audit: Audit;
    handlers: Readonly<Record<JobKind, JobHandler>>;
    recorder?: JobRecorder;
  }) {
    this.#store = new JobStore(o);
    this.#clock = o.clock;
    this.#random = o.random;
    this.#log = o.log;
    this.#events = o.events;
    this.#audit = o.audit;
    this.#handlers = o.handlers;
    this.#recorder = o.recorder;
  }

  /** Begins to work, with what an earlier process left. */
  open(): void {
    this.#isOpen = true;
    for (const row of this.#store.inState('running')) this.#takeUp(row);
    // What a person should look at first is not begun by itself either, perhaps days after it was asked for.
    for (const job of this.#inState('queued')) {
      if (this.#handlers[job.kind].repeatable) continue;
      // It may have begun nonetheless: while there is no room, that is not stored.
      const said = 'the site process ended before it was on record that the job had begun';
      this.#end(job, controlFailure('JOB_INTERRUPTED', said));
    }
    this.#startNext();
  }

  #takeUp(row: JobRow): void {
    const job = this.#viewOf(row);
    const { repeatable, unwinds } = this.#handlers[job.kind];
    const known = outcomeOf(row);
    if (known) this.#finishLater(job, known.error, known.result);
    else if (isCancelled(row) && !unwinds) this.#finishLater(job, wasCancelled());
    else if (repeatable) this.#update(job.jobId, { state: 'queued' });
    else
      this.#finishLater(job, controlFailure('JOB_INTERRUPTED', 'the site process ended while the job ran'));
  }

  /** Stops the work; jobs that ran are taken up by the next process. */
  async close(): Promise<void> {
    this.#isOpen = false;
    const ends = [...this.#running.values()].map(({ controller, ended }) => {
      controller.abort(controlFailure('JOB_INTERRUPTED', 'the site is shutting down'));
      return ended;
    });
    await Promise.all([...ends, ...this.#finishing]);
    this.#store.close();
  }

  /** Durable on return. Throws SITE_DATABASE_FULL, also while there is no room for the ends of others; nothing is begun then. */
  start(request: JobRequest): JobView {
    this.#store.save();
    const jobId = newId(this.#clock, this.#random);
    const intent = this.#audit.begin(actOf(request, jobId));
    this.#store.add({ ...request, jobId, createdAtMs: this.#clock.wallMs(), intent });
    this.#startNext();
    return this.get(jobId);
  }

  find(jobId: string): JobView | undefined {
    const row = this.#store.find(jobId);
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
    return this.#store.newest(LISTED_MAX).map((row) => this.#viewOf(row));
  }

  /** Asks the job to end, durably: no other process goes on with it. One that has ended, or whose work is over, stays as it is. */
  cancel(jobId: string): JobView {
    const job = this.get(jobId);
    const running = this.#running.get(jobId);
    if (running) {
      if (!outcomeOf(this.#row(jobId)))
        this.#store.change(jobId, { failure: JSON.stringify(wasCancelled()) });
      running.controller.abort();
    } else if (job.state === 'queued') this.#end(job, wasCancelled());
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

  /** Jobs that have ended after they had begun, with the audit entries of their beginning; the newest first. */
  ended(): readonly EndingJob[] {
    return this.#store
      .ended(LISTED_MAX)
      .map((row) => ({ job: this.#viewOf(row), steps: [], intent: Number(row.intent) }))
      .filter(({ job }) => job.startedAtMs !== undefined);
  }

  /** Jobs of a kind about a machine, the newest first. */
  ofMachine(kind: JobKind, machineId: string, most: number): JobView[] {
    return this.#store.ofMachine(kind, machineId, most).map((row) => this.#viewOf(row));
  }

  /** Jobs of these kinds that have not ended. */
  underWay(kinds: readonly JobKind[]): JobView[] {
    return [...this.#inState('running'), ...this.#inState('queued')].filter(({ kind }) =>
      kinds.includes(kind),
    );
  }

  /** The newest job that somebody has begun about a machine. */
  newestOf(actor: string, machineId: string): JobView | undefined {
    const row = this.#store.newestOf(actor, machineId);
    return row && this.#viewOf(row);
  }

  #startNext(): void {
    if (!this.#isOpen) return;
    for (const job of this.#inState('queued')) {
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
      steps: [],
    };
    this.#running.set(job.jobId, running);
    if (isCancelled(this.#row(job.jobId))) running.controller.abort();
    this.#update(job.jobId, { state: 'running', started_at_ms: this.#clock.wallMs() });
    running.ended = this.#work(job, running).finally(() => {
      this.#running.delete(job.jobId);
      this.#startNext();
    });
  }

  /** Never rejects. */
  async #work(job: JobView, running: Running): Promise<void> {
    let result: unknown;
    let why: unknown;
    try {
      result = await this.#handlers[job.kind].run({
        jobId: job.jobId,
        machineId: job.machineId,
        args: job.args,
        signal: running.controller.signal,
        progress: (progress) => this.#show(job.jobId, running, progress),
      });
    } catch (error) {
      // A job that ended because the site closes is not over: the next process takes it up.
      if (!this.#isOpen) return;
      if (!isFailure(error)) this.#log.error('job.broke', { jobId: job.jobId, kind: job.kind, error });
      const { signal } = running.controller;
      why = signal.aborted ? cancelled(signal) : error;
    }
    await this.#finish(job, why, result, running.steps);
  }

  /** What has come of the work is durable first, then what is kept of it, and last that the job has ended. */
  async #finish(job: JobView, error: unknown, result: unknown, steps: readonly JobStep[]): Promise<void> {
    const recorder = this.#recorder;
    if (recorder?.wants(job.kind)) {
      const failure = error === undefined ? undefined : failureOf(error).toJSON();
      const before = this.#row(job.jobId).ended_at_ms;
      const endedAtMs = before === null ? this.#clock.wallMs() : Number(before);
      this.#store.change(job.jobId, { ended_at_ms: endedAtMs, ...outcomeColumns(failure, result) });
      const ended: JobView = {
        ...{ ...this.get(job.jobId), state: stateOf(failure), endedAtMs },
        ...(result === undefined ? {} : { result: JSON.parse(JSON.stringify(result)) as unknown }),
        ...(failure === undefined ? {} : { failure: failure as NonNullable<JobView['failure']> }),
      };
      await recorder.record({ job: ended, steps, intent: Number(this.#row(job.jobId).intent) });
    }
    this.#end(job, error, result);
  }

  #finishLater(job: JobView, error: unknown, result?: unknown): void {
    if (!this.#recorder?.wants(job.kind)) {
      this.#end(job, error, result);
      return;
    }
    const finished = this.#finish(job, error, result, []).finally(() => this.#finishing.delete(finished));
    this.#finishing.add(finished);
  }

  #row(jobId: string): JobRow {
    return this.#store.find(jobId)!;
  }

  #show(jobId: string, running: Running, progress: Progress): void {
    const { step } = progress;
    const isNew = step !== undefined && step !== running.progress.step;
    if (isNew && running.steps.length < STEPS_MAX)
      running.steps.push({ step, beganAtMs: this.#clock.wallMs() });
    running.progress = progress;
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - running.toldAtMs < PROGRESS_EVERY_MS) return;
    running.toldAtMs = nowMs;
    this.#tell(jobId);
  }

  #end(job: JobView, error: unknown, result?: unknown): void {
    const failure = error === undefined ? undefined : failureOf(error).toJSON();
    const state = stateOf(failure);
    const { intent, ended_at_ms: ended } = this.#row(job.jobId);
    // An earlier process may have ended right after it had written that.
    if (!this.#audit.hasEnd(Number(intent))) this.#audit.end(Number(intent), actOf(job, job.jobId), error);
    this.#update(job.jobId, {
      state,
      ended_at_ms: ended === null ? this.#clock.wallMs() : Number(ended),
      ...outcomeColumns(failure, result),
    });
    const why = error instanceof Failure ? { code: error.code, reason: messageOf(error) } : {};
    this.#log.info('job.ended', { jobId: job.jobId, kind: job.kind, state, ...why });
  }

  #update(jobId: string, change: JobChange): void {
    this.#store.change(jobId, change);
    this.#tell(jobId);
  }

  #tell(jobId: string): void {
    this.#events.emit({ event: 'job', job: this.get(jobId) });
  }

  #inState(state: 'queued' | 'running'): JobView[] {
    return this.#store.inState(state).map((row) => this.#viewOf(row));
  }

  #viewOf(row: JobRow): JobView {
    return viewOf(row, this.#running.get(String(row.job_id))?.progress ?? {});
  }
}

/** What the work of a job has come to, also before it is said to have ended. */
function outcomeOf(row: JobRow): { readonly error: unknown; readonly result: unknown } | undefined {
  if (row.ended_at_ms === null) return undefined;
  const record = row.failure === null ? undefined : (JSON.parse(String(row.failure)) as FailureRecord);
  const result: unknown = row.result === null ? undefined : JSON.parse(String(row.result));
  if (!record) return { error: undefined, result };
  const { code, kind, retry, hint, message, context } = record;
  return { error: new Failure(code, { kind, retry, remedy: hint }, message, { context }), result };
}

function wasCancelled(): Failure {
  return failureOf(cancelled(AbortSignal.abort()));
}

/** A job whose work is not over, and that has a failure nonetheless, is to end with that: somebody has cancelled it. */
function isCancelled(row: JobRow): boolean {
  return row.ended_at_ms === null && row.failure !== null;
}

export function hasEnded(job: JobView): boolean {
  return job.state === 'done' || job.state === 'failed' || job.state === 'cancelled';
}

function stateOf(failure: FailureRecord | undefined): 'done' | 'cancelled' | 'failed' {
  if (failure === undefined) return 'done';
  return failure.code === 'CANCELLED' ? 'cancelled' : 'failed';
}

function outcomeColumns(failure: FailureRecord | undefined, result: unknown) {
  return {
    result: result === undefined ? null : JSON.stringify(result),
    failure: failure === undefined ? null : JSON.stringify(failure),
  };
}

function actOf(job: Pick<JobView, 'kind' | 'args' | 'actor' | 'machineId'>, jobId: string): AuditedAct {
  return {
    actor: job.actor,
    act: job.kind,
    subject: job.machineId,
    details: { jobId, ...job.args },
  };
}
