import type { BranchView, HookOutcome, JobView, PlanRun, RunStep } from '../../api/index.ts';
import { type Clock, sleep, throwIfAborted } from '../../lib/clock.ts';
import { isFailure, messageOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { MOST_AT_ONCE, needsOf, nextActs, verdictOf } from '../../plan/index.ts';
import type { EventHub } from '../base/event-hub.ts';
import type { JobContext } from '../base/jobs.ts';
import { Wakeup } from '../base/wakeup.ts';
import { type AbsenceClocks, absenceOf, touchedNow } from './absence.ts';
import type { HookPlace, PlanHooks } from './plan-hooks.ts';
import type { PlanStore } from './plan-store.ts';

/** What a run does with machines: each act is a job of its own, begun in the name of the run. */
export interface PlanActs {
  /** Makes the network in which the machines of a test see each other; nothing is left of an earlier one. */
  openTest(run: PlanRun): Promise<void>;
  /** Ends the machines of a test and removes all of it. */
  closeTest(run: PlanRun): Promise<void>;
  /** The id of a machine that this site knows by that name. */
  idOf(machine: string): string | undefined;
  /**
   * What the run asks for is so already: it was brought up, or handed over, before. The guest of a machine that runs, and of which nobody
   * recorded that it has come up, is asked its gates; one that does not answer them has failed.
   */
  isSo(run: PlanRun, machine: string, signal: AbortSignal): Promise<Partial<RunStep> | undefined>;
  /** Brings one machine up, takes it over, hands it over or tests it, as the run asks. Throws what stands in the way. */
  begin(run: PlanRun, machine: string): Promise<JobView>;
  /** Branches of a machine that failovers have made here. */
  branches(machine: string): Promise<readonly BranchView[]>;
  /** Why the guest of a branch that runs does not answer its gates; undefined if it does. */
  objection(
    run: PlanRun,
    machine: string,
    branchId: string,
    signal: AbortSignal,
  ): Promise<string | undefined>;
  /** Whether this site holds what it has brought up, as far as it has heard: nothing else that runs of a machine is up. */
  isHeld(machine: string): boolean;
  restart(run: PlanRun, machine: string, branchId: string): Promise<JobView>;
  readonly hooks: Pick<PlanHooks, 'run'>;
}

/** The jobs of a site, as far as a run needs them. */
export interface RunJobs {
  find(jobId: string): JobView | undefined;
  newestOf(actor: string, machineId: string): JobView | undefined;
  /** Undefined if `signal` is aborted before. */
  endOf(jobId: string, signal: AbortSignal): Promise<JobView | undefined>;
  waitFor(jobId: string, waitMs: number, signal: AbortSignal): Promise<JobView>;
  cancel(jobId: string): void;
}

interface RunnerTools extends AbsenceClocks {
  readonly store: PlanStore;
  readonly acts: PlanActs;
  readonly jobs: () => RunJobs;
  readonly events: EventHub;
  readonly clock: Clock;
  readonly log: Log;
}

/** What cannot be recorded is recorded when it can. */
const STORE_AGAIN_AFTER_MS = 2_000;
/** So long jobs have to end that were cancelled with their run. */
const CANCEL_LIMIT_MS = 60_000;
const NEVER = new AbortController().signal;

/** In whose name a run acts: how its jobs are found again. */
export function actorOf({ runId }: Pick<PlanRun, 'runId'>): string {
  return `plan:${runId}`;
}

/** In whose name a site rehearses by itself. */
export const REHEARSING_ACTOR = 'site';

/** It was begun by the site itself: nobody is there who could be asked. */
export function isOfSchedule({ actor, request }: Pick<PlanRun, 'actor' | 'request'>): boolean {
  return actor === REHEARSING_ACTOR && request.mode === 'test';
}

/**
 * Carries one run of a plan out, to its end. Each step is on record before it is done, so that whatever ends this process, the next one
 * goes on: a job that went on or ended meanwhile is found, and a machine whose boot nobody saw to its end is asked its gates.
 */
export class PlanRunner {
  readonly #o: RunnerTools;
  readonly #runId: string;
  readonly #changed: Wakeup;
  /** Machines whose jobs are followed here. */
  readonly #followed = new Map<string, Promise<void>>();
  #signal: AbortSignal = NEVER;

  constructor(o: RunnerTools, runId: string) {
    this.#o = o;
    this.#runId = runId;
    this.#changed = new Wakeup(o.clock);
  }

  get run(): PlanRun {
    return this.#o.store.needRun(this.#runId);
  }

  async carryOut(job: JobContext): Promise<PlanRun> {
    const { signal } = job;
    // What was cancelled, or had ended, before this process was is not begun once more.
    if (this.run.endedAtMs !== undefined) {
      if (this.run.verdict === 'cancelled') throwIfAborted(signal);
      return this.run;
    }
    this.#signal = signal;
    try {
      return await this.#carryOut(job);
    } catch (error) {
      // Nobody goes on with it, unless the site closes.
      if (this.run.endedAtMs === undefined)
        await (signal.aborted ? this.#leave() : this.#endBroken(messageOf(error)));
      throw error;
    }
  }

  async #carryOut({ signal, progress }: JobContext): Promise<PlanRun> {
    const { request, document } = this.run;
    const needs = needsOf(document, request.mode === 'cede' ? 'backward' : 'forward');
    let isMissed = false;
    try {
      throwIfAborted(signal);
      if (request.mode === 'test') await this.#openTest();
      await this.#askAfterAbsence();
      let isReady = false;
      for (;;) {
        throwIfAborted(signal);
        const states = new Map(this.run.steps.map(({ machine, state }) => [machine, state]));
        const { begin, block, isOver } = nextActs(needs, states);
        if (isOver) break;
        for (const { machine, by } of block)
          await this.#step(machine, { state: 'blocked', reason: `${by} is not up` });
        for (const machine of begin) await this.#begin(machine);
        if (!isReady && this.run.steps.some(({ state }) => state === 'starting')) {
          // Not before somebody has said that the first machine may begin.
          const hindrance = await this.#hooks({ when: 'before' });
          if (hindrance !== undefined) return await this.#endUnbegun(hindrance);
          isReady = true;
        }
        this.#followAll();
        progress({ step: saidOf(this.run.steps) });
        if (block.length === 0) await this.#changed.wait(Number.POSITIVE_INFINITY, signal);
      }
      await Promise.all(this.#followed.values());
      isMissed = (await this.#hooks({ when: 'after' })) !== undefined;
    } catch (error) {
      await this.#leave();
      throw error;
    } finally {
      if (request.mode === 'test') await this.#o.acts.closeTest(this.run);
    }
    const verdict = verdictOf(this.run.steps);
    return this.#end(isMissed && verdict === 'done' ? 'partly' : verdict);
  }

  /** Runs hooks around a machine or the run; why one has failed that had to pass. Each is on record when it has ended. */
  #hooks(place: HookPlace): Promise<string | undefined> {
    const { step } = place;
    const told = async (outcome: HookOutcome) => {
      if (step)
        await this.#step(step.machine, { hooks: [...(this.#stepOf(step.machine).hooks ?? []), outcome] });
      else await this.#change((run) => ({ ...run, hooks: [...(run.hooks ?? []), outcome] }));
    };
    return this.#o.acts.hooks.run(this.run, place, told, this.#signal);
  }

  async #endUnbegun(reason: string): Promise<PlanRun> {
    for (const { machine, state, jobId } of this.run.steps) {
      const isUnbegun =
        state === 'waiting' || state === 'asking' || (state === 'starting' && jobId === undefined);
      if (isUnbegun) await this.#step(machine, { state: 'blocked', reason });
    }
    return this.#end(verdictOf(this.run.steps));
  }

  /** What could not be done concerns no single machine, such as the network of a test. */
  async #endBroken(reason: string): Promise<void> {
    for (const { machine, state, jobId } of this.run.steps) {
      if (state === 'done' || state === 'failed' || state === 'blocked') continue;
      await this.#step(machine, { state: jobId === undefined ? 'blocked' : 'failed', reason });
    }
    const verdict = verdictOf(this.run.steps);
    await this.#end(verdict === 'done' ? 'failed' : verdict);
  }

  /** Of a test whose site ended nothing is left: its machines went when the site started again, and all of it is done anew. */
  async #openTest(): Promise<void> {
    const jobs = this.#o.jobs();
    for (const { machine, machineId, state, jobId, ...kept } of this.run.steps) {
      const { approvedBy, approvedAtMs, answers, pointId, cutId } = kept;
      if (state === 'waiting' || state === 'asking') continue;
      const job = jobId === undefined ? this.#newestJob(machine) : jobs.find(jobId);
      if (job?.state === 'queued' || job?.state === 'running') {
        jobs.cancel(job.jobId);
        await jobs.waitFor(job.jobId, CANCEL_LIMIT_MS, NEVER);
      }
      const anew: RunStep = {
        ...{ machine, machineId, state: 'waiting' },
        ...(approvedBy ? { approvedBy } : {}),
        ...(approvedAtMs === undefined ? {} : { approvedAtMs }),
        ...(answers ? { answers } : {}),
        ...(pointId ? { pointId } : {}),
        ...(cutId ? { cutId } : {}),
      };
      await this.#change((run) => ({
        ...run,
        steps: run.steps.map((step) => (step.machine === machine ? anew : step)),
      }));
    }
    await this.#o.acts.openTest(this.run);
  }

  /**
   * Whether to bring machines up without the other site is decided by a person who knows what stands: what was true long ago need not be
   * true any more. A machine that runs goes on to run: by that nothing is started.
   */
  async #askAfterAbsence(): Promise<void> {
    if (this.run.request.mode !== 'unplanned') return;
    const absence = absenceOf(this.run, this.#o);
    if (absence === undefined) return;
    const asks = `${absence}: is the other one still down?`;
    const open = new Set<string>();
    for (const { machine, state } of this.run.steps) {
      const isOpen = state === 'waiting' || state === 'asking' || (await this.#wouldStart(machine));
      if (isOpen) open.add(machine);
    }
    // All at once: whoever looks at what is recorded next sees a site that was there a moment ago.
    await this.#change((run) => ({
      ...run,
      steps: run.steps.map((step) => {
        const { approvedBy, approvedAtMs, ...others } = step;
        return open.has(step.machine) ? { ...others, state: 'waiting', asks } : step;
      }),
    }));
  }

  /** Of a step that was begun: to go on with it is to start a machine. */
  async #wouldStart(machine: string): Promise<boolean> {
    if (this.#stepOf(machine).state !== 'starting') return false;
    const known = this.#knownJob(machine);
    if (!known) return true;
    // What an earlier process left is still being ended when this one has just begun.
    const job = await this.#o.jobs().endOf(known.jobId, this.#signal);
    throwIfAborted(this.#signal);
    if (job?.failure?.code !== 'JOB_INTERRUPTED') return false;
    try {
      return !(await this.#madeBy(machine)).some(({ running }) => running);
    } catch (error) {
      // Its own step says what hinders it, if that still does when a person has said yes.
      if (!isFailure(error)) throw error;
      return true;
    }
  }

  /** The branches that the step of a machine has made. */
  async #madeBy(machine: string): ReturnType<PlanActs['branches']> {
    const { formerBranchIds, beganAtMs = 0 } = this.#stepOf(machine);
    const branches = await this.#o.acts.branches(machine);
    if (formerBranchIds) return branches.filter(({ branchId }) => !formerBranchIds.includes(branchId));
    // An earlier program has begun it, and kept nothing but the time.
    return branches.filter(({ createdAtMs }) => createdAtMs >= beganAtMs);
  }

  /** Somebody has cancelled the run, or the site closes: then the next process goes on, and jobs of their own do what they do. */
  async #leave(): Promise<void> {
    // A job that was just being begun is on record then.
    await Promise.all(this.#followed.values());
    const { reason, aborted } = this.#signal;
    if (!aborted || isFailure(reason, 'JOB_INTERRUPTED')) return;
    const jobs = this.#o.jobs();
    for (const { machine, state } of this.run.steps) {
      const jobId = state === 'starting' ? this.#knownJob(machine)?.jobId : undefined;
      if (jobId === undefined) continue;
      jobs.cancel(jobId);
      const ended = await jobs.waitFor(jobId, CANCEL_LIMIT_MS, NEVER);
      await this.#step(machine, { ...outcomeOf(ended), endedAtMs: this.#o.clock.wallMs() });
    }
    await this.#end('cancelled');
  }

  async #begin(machine: string): Promise<void> {
    const { document } = this.run;
    const approval = isOfSchedule(this.run) ? undefined : document.machines[machine]?.approval;
    const { asks, approvedBy } = this.#stepOf(machine);
    const question = asks ?? (approvedBy === undefined ? approval : undefined);
    if (question !== undefined) {
      await this.#step(machine, { state: 'asking', reason: question });
      return;
    }
    const underWay = this.run.steps.filter(({ state }) => state === 'starting').length;
    // It has its turn when another one has ended.
    if (underWay >= MOST_AT_ONCE) return;
    const machineId = this.#o.acts.idOf(machine) ?? '';
    const beganAtMs = this.#o.clock.wallMs();
    await this.#step(machine, { state: 'starting', machineId, beganAtMs, reason: undefined });
  }

  #followAll(): void {
    for (const { machine, state } of this.run.steps) {
      if (state !== 'starting' || this.#followed.has(machine)) continue;
      const followed = this.#follow(machine)
        .catch((error: unknown) => {
          // The run is being left: its record is what it was, and the next process looks again.
          const reason = messageOf(error);
          this.#o.log.info('plan.step-left', { runId: this.#runId, machine, reason });
        })
        .finally(() => {
          this.#followed.delete(machine);
          this.#changed.ring();
        });
      this.#followed.set(machine, followed);
    }
  }

  /** Rejects only when the run is being left. */
  async #follow(machine: string): Promise<void> {
    const outcome = await this.#outcome(machine);
    if (outcome) await this.#step(machine, { ...outcome, endedAtMs: this.#o.clock.wallMs() });
  }

  /** Undefined if the run is left before. */
  async #outcome(machine: string): Promise<Partial<RunStep> | undefined> {
    const { acts } = this.#o;
    try {
      let job = this.#knownJob(machine);
      if (!job) {
        const so = await acts.isSo(this.run, machine, this.#signal);
        if (so) {
          const reason = 'it was so before the run came to it';
          return await this.#afterwards(machine, { state: 'done', reason, ...so });
        }
        const hindrance = await this.#hooks({ when: 'before', step: this.#stepOf(machine) });
        if (hindrance !== undefined) return { state: 'failed', reason: hindrance };
        await this.#keepFormer(machine);
        job = await acts.begin(this.run, machine);
      }
      for (;;) {
        await this.#step(machine, { jobId: job.jobId });
        const ended = await this.#o.jobs().endOf(job.jobId, this.#signal);
        if (!ended) return undefined;
        if (ended.failure?.code !== 'JOB_INTERRUPTED')
          return await this.#afterwards(machine, outcomeOf(ended));
        const next = await this.#goOn(machine);
        if ('outcome' in next) return await this.#afterwards(machine, next.outcome);
        job = next.job;
      }
    } catch (error) {
      if (this.#signal.aborted) return undefined;
      return { state: 'failed', reason: messageOf(error) };
    }
  }

  /** A machine counts as up when what is run after it has passed, too. */
  async #afterwards(machine: string, outcome: Partial<RunStep>): Promise<Partial<RunStep>> {
    if (outcome.state !== 'done') return outcome;
    const step = { ...this.#stepOf(machine), ...outcome };
    const hindrance = await this.#hooks({ when: 'after', step });
    return hindrance === undefined ? outcome : { ...outcome, state: 'failed', reason: hindrance };
  }

  /** So that what the job makes is known by itself: a clock that is set in between tells nothing of what came first. */
  async #keepFormer(machine: string): Promise<void> {
    const { mode } = this.run.request;
    // What is tested is made anew by another process, and what is handed over makes nothing here.
    if (mode === 'test' || mode === 'cede') return;
    const branches = await this.#o.acts.branches(machine);
    await this.#step(machine, { formerBranchIds: branches.map(({ branchId }) => branchId) });
  }

  /** The job that an earlier process has begun for this step, if there is one. */
  #knownJob(machine: string): JobView | undefined {
    const { jobId } = this.#stepOf(machine);
    if (jobId !== undefined) return this.#o.jobs().find(jobId);
    // A test is begun anew by each process: all jobs that it finds are of earlier ones, and have been ended.
    return this.run.request.mode === 'test' ? undefined : this.#newestJob(machine);
  }

  #newestJob(machine: string): JobView | undefined {
    return this.#o.jobs().newestOf(actorOf(this.run), this.#stepOf(machine).machineId);
  }

  /**
   * The site ended while a machine was being brought up. Only what this step has made counts: a machine that runs is asked its gates, and
   * left running whatever it answers, unless another site holds it by then; one that has ended is booted on its own files; where there is none it is begun anew.
   */
  async #goOn(machine: string): Promise<Again> {
    const { acts } = this.#o;
    if (this.run.request.mode === 'test') return { job: await acts.begin(this.run, machine) };
    const own = (await this.#madeBy(machine)).filter(({ state }) => state !== 'failed');
    const branch = own.find(({ running }) => running) ?? own.at(-1);
    if (!branch) return { job: await acts.begin(this.run, machine) };
    const { branchId, sequence } = branch;
    if (!branch.running) return { job: await acts.restart(this.run, machine, branchId) };
    const found = { branchId, ...(sequence === undefined ? {} : { sequence }) };
    const isAsked = acts.isHeld(machine) && branch.state !== 'probed';
    const objection = isAsked ? await acts.objection(this.run, machine, branchId, this.#signal) : undefined;
    const reason = acts.isHeld(machine) ? objection : 'another site holds it';
    if (reason === undefined) return { outcome: { state: 'done', ...found } };
    return { outcome: { state: 'failed', reason, ...found } };
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

  /** A disk that is full for a while must not end a recovery: what cannot be recorded is tried again until the run is left. */
  async #change(change: (run: PlanRun) => PlanRun): Promise<PlanRun> {
    const { store, clock, events, log } = this.#o;
    for (;;) {
      try {
        const touched = touchedNow(this.#o);
        const run = await store.changeRun(this.#runId, (before) => ({ ...change(before), ...touched }));
        events.emit({ event: 'plan-run', runId: this.#runId });
        return run;
      } catch (error) {
        if (!isFailure(error) || this.#signal.aborted) throw error;
        log.error('plan.not-recorded', { runId: this.#runId, reason: error.message });
        await sleep(clock, STORE_AGAIN_AFTER_MS, this.#signal);
      }
    }
  }

  /** A person has said yes to the one question that is asked. Durable on return; whether anything was asked. */
  async approve(machine: string, by: string): Promise<boolean> {
    if (this.#stepOf(machine)?.state !== 'asking') return false;
    const atMs = this.#o.clock.wallMs();
    let isAsked = false;
    await this.#change((run) => {
      // Of two who say yes at once the second has answered nothing: it may be another question by then.
      isAsked = run.steps.some((step) => step.machine === machine && step.state === 'asking');
      const said = (step: RunStep) => (isAsked && step.machine === machine ? answered(step, by, atMs) : step);
      return { ...run, steps: run.steps.map(said) };
    });
    if (isAsked) this.#changed.ring();
    return isAsked;
  }
}

/** That the other site is still down is no answer to what the plan asks, which is asked next. */
function answered({ asks, reason, ...step }: RunStep, by: string, atMs: number): RunStep {
  return {
    ...{ ...step, state: 'waiting' },
    ...(asks === undefined ? { approvedBy: by, approvedAtMs: atMs } : {}),
    answers: [...(step.answers ?? []), { question: reason ?? '', by, atMs }],
  };
}

/** What is done about a step whose job has been interrupted. */
type Again = { readonly job: JobView } | { readonly outcome: Partial<RunStep> };

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
