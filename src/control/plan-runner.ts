import type { BranchView, JobView, PlanRun, RunStep } from '../api/index.ts';
import { type Clock, throwIfAborted } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { needsOf, nextActs, verdictOf } from '../plan/index.ts';
import type { EventHub } from './event-hub.ts';
import type { JobContext } from './jobs.ts';
import type { PlanStore } from './plan-store.ts';
import { Wakeup } from './wakeup.ts';

/** What a run does with machines: each act is a job of its own, begun in the name of the run. */
export interface PlanActs {
  /** Brings one machine up, takes it over, hands it over or tests it, as the run asks. Throws what stands in the way. */
  begin(run: PlanRun, machine: string): Promise<JobView>;
  /** Branches of a machine that failovers have made here. */
  branches(machine: string): Promise<readonly BranchView[]>;
  stop(run: PlanRun, machine: string, branchId: string): JobView;
  restart(run: PlanRun, machine: string, branchId: string): JobView;
}

/** The jobs of a site, as far as a run needs them. */
export interface RunJobs {
  list(): readonly JobView[];
  waitFor(jobId: string, waitMs: number, signal: AbortSignal): Promise<JobView>;
  cancel(jobId: string): void;
}

interface RunnerTools {
  readonly store: PlanStore;
  readonly acts: PlanActs;
  readonly jobs: () => RunJobs;
  readonly events: EventHub;
  readonly clock: Clock;
}

/** Longer than any work: a wait is begun again. */
const WAIT_MS = 3_600_000;

/** In whose name a run acts: how its jobs are found again. */
export function actorOf({ runId }: Pick<PlanRun, 'runId'>): string {
  return `plan:${runId}`;
}

/**
 * Carries one run of a plan out, to its end. Each step is on record before it is done, so that whatever ends this process, the next one
 * goes on: a job that went on or ended meanwhile is found, and a machine whose boot nobody saw to its end is booted again.
 */
export class PlanRunner {
  readonly #o: RunnerTools;
  readonly #runId: string;
  readonly #changed: Wakeup;
  /** Machines whose jobs are followed here. */
  readonly #followed = new Map<string, Promise<void>>();

  constructor(o: RunnerTools, runId: string) {
    this.#o = o;
    this.#runId = runId;
    this.#changed = new Wakeup(o.clock);
  }

  get run(): PlanRun {
    return this.#o.store.needRun(this.#runId);
  }

  /** Somebody has said yes to something. */
  ring(): void {
    this.#changed.ring();
  }

  async carryOut({ signal, progress }: JobContext): Promise<PlanRun> {
    const { request, document } = this.run;
    const needs = needsOf(document, request.mode === 'cede' ? 'backward' : 'forward');
    try {
      for (;;) {
        throwIfAborted(signal);
        const states = new Map(this.run.steps.map(({ machine, state }) => [machine, state]));
        const { begin, block, isOver } = nextActs(needs, states);
        if (isOver) break;
        for (const { machine, by } of block)
          await this.#step(machine, { state: 'blocked', reason: `${by} is not up` });
        for (const machine of begin) await this.#begin(machine);
        this.#followAll(signal);
        progress({ step: saidOf(this.run.steps) });
        if (block.length === 0) await this.#changed.wait(Number.POSITIVE_INFINITY, signal);
      }
    } catch (error) {
      await this.#leave(signal);
      throw error;
    }
    await Promise.all(this.#followed.values());
    return this.#end(verdictOf(this.run.steps));
  }

  /** Somebody has cancelled the run, or the site closes: then the next process goes on, and jobs of their own do what they do. */
  async #leave(signal: AbortSignal): Promise<void> {
    // A job that was just being begun is on record then.
    await Promise.all(this.#followed.values());
    if (isFailure(signal.reason, 'JOB_INTERRUPTED')) return;
    for (const { jobId, state } of this.run.steps)
      if (jobId !== undefined && state === 'starting') this.#o.jobs().cancel(jobId);
    await this.#end('cancelled');
  }

  async #begin(machine: string): Promise<void> {
    const { document } = this.run;
    const approval = document.machines[machine]?.approval;
    const step = this.#stepOf(machine);
    if (approval !== undefined && step.approvedBy === undefined) {
      await this.#step(machine, { state: 'asking', reason: approval });
      return;
    }
    await this.#step(machine, { state: 'starting', beganAtMs: this.#o.clock.wallMs(), reason: undefined });
  }

  #followAll(signal: AbortSignal): void {
    for (const { machine, state } of this.run.steps) {
      if (state !== 'starting' || this.#followed.has(machine)) continue;
      const followed = this.#follow(machine, signal).finally(() => {
        this.#followed.delete(machine);
        this.#changed.ring();
      });
      this.#followed.set(machine, followed);
    }
  }

  /** Never rejects. */
  async #follow(machine: string, signal: AbortSignal): Promise<void> {
    try {
      let job = await this.#jobOf(machine);
      for (;;) {
        await this.#step(machine, { jobId: job.jobId });
        const ended = await this.#ended(job, signal);
        if (!ended) return;
        if (ended.failure?.code !== 'JOB_INTERRUPTED') {
          await this.#step(machine, { ...outcomeOf(ended), endedAtMs: this.#o.clock.wallMs() });
          return;
        }
        const again = await this.#again(machine, signal);
        if (!again) return;
        job = again;
      }
    } catch (error) {
      if (signal.aborted) return;
      const reason = messageOf(error);
      await this.#step(machine, { state: 'failed', reason, endedAtMs: this.#o.clock.wallMs() });
    }
  }

  /** The job that an earlier process has begun for this step, if there is one. */
  async #jobOf(machine: string): Promise<JobView> {
    const { jobId, machineId } = this.#stepOf(machine);
    const ours = this.#o
      .jobs()
      .list()
      .filter((job) => job.actor === actorOf(this.run) && job.machineId === machineId);
    const known = ours.find((job) => job.jobId === jobId) ?? ours[0];
    return known ?? this.#o.acts.begin(this.run, machine);
  }

  /** A site ended while a machine was being brought up: what nobody saw to its end is booted again, on its own files. */
  async #again(machine: string, signal: AbortSignal): Promise<JobView | undefined> {
    const { acts } = this.#o;
    if (this.run.request.mode === 'test') return acts.begin(this.run, machine);
    const branches = await acts.branches(machine);
    const branch = branches.find(({ running }) => running) ?? branches.at(-1);
    if (!branch) return acts.begin(this.run, machine);
    if (branch.running && !(await this.#ended(acts.stop(this.run, machine, branch.branchId), signal)))
      return undefined;
    return acts.restart(this.run, machine, branch.branchId);
  }

  /** Undefined if the run ends before. */
  async #ended({ jobId }: JobView, signal: AbortSignal): Promise<JobView | undefined> {
    while (!signal.aborted) {
      const job = await this.#o.jobs().waitFor(jobId, WAIT_MS, signal);
      if (job.state !== 'queued' && job.state !== 'running') return job;
    }
    return undefined;
  }

  #stepOf(machine: string): RunStep {
    return this.run.steps.find((step) => step.machine === machine)!;
  }

  /** What is undefined goes. */
  async #step(machine: string, change: { [K in keyof RunStep]?: RunStep[K] | undefined }): Promise<void> {
    const changed = (step: RunStep) => {
      const members = Object.entries({ ...step, ...change }).filter(([, value]) => value !== undefined);
      return Object.fromEntries(members) as RunStep;
    };
    await this.#change((run) => ({
      ...run,
      steps: run.steps.map((step) => (step.machine === machine ? changed(step) : step)),
    }));
  }

  #end(verdict: NonNullable<PlanRun['verdict']>): Promise<PlanRun> {
    return this.#change((run) => ({ ...run, verdict, endedAtMs: this.#o.clock.wallMs() }));
  }

  async #change(change: (run: PlanRun) => PlanRun): Promise<PlanRun> {
    const run = await this.#o.store.changeRun(this.#runId, change);
    this.#o.events.emit({ event: 'plan-run', runId: this.#runId });
    return run;
  }

  /** A person has said yes. Durable on return; whether anything was asked. */
  async approve(machine: string, approvedBy: string): Promise<boolean> {
    if (this.#stepOf(machine)?.state !== 'asking') return false;
    await this.#step(machine, { state: 'waiting', approvedBy, reason: undefined });
    this.#changed.ring();
    return true;
  }
}

function outcomeOf({ state, failure, result }: JobView): Partial<RunStep> {
  if (state !== 'done') return { state: 'failed', reason: failure?.message ?? `its job was ${state}` };
  const report = (result ?? {}) as {
    verdict?: string;
    branchId?: string | null;
    point?: { sequence: number };
    sequence?: number;
    attempts?: readonly { reasons: readonly string[] }[];
  };
  const sequence = report.point?.sequence ?? report.sequence;
  const found = {
    ...(sequence === undefined ? {} : { sequence }),
    ...(report.branchId ? { branchId: report.branchId } : {}),
  };
  if (report.verdict !== 'failed') return { state: 'done', ...found };
  const reason = report.attempts?.at(-1)?.reasons.join('; ') || 'it did not come up';
  return { state: 'failed', reason, ...found };
}

function saidOf(steps: readonly RunStep[]): string {
  const named = (state: RunStep['state']) =>
    steps.filter((step) => step.state === state).map(({ machine }) => machine);
  const done = named('done').length;
  const [starting, asking] = [named('starting'), named('asking')];
  const now = [
    ...(starting.length > 0 ? [`under way: ${starting.join(', ')}`] : []),
    ...(asking.length > 0 ? [`waiting for a person: ${asking.join(', ')}`] : []),
  ];
  return [`${done} of ${steps.length} done`, ...now].join('; ');
}
