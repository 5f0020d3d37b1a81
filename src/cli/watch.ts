import type { JobView, MachineView, ReplicationView } from '../api/index.ts';
import { sleep } from '../lib/clock.ts';
import { Failure, type FailureRecord, isFailure } from '../lib/errors.ts';
import { pauseMs } from '../lib/retry.ts';
import type { ApiClient } from './api-client.ts';
import { type Context, EXIT_FOUND_BAD, type Report } from './context.ts';
import { olderWords } from './format.ts';
import type { ProgressDisplay, WorkState } from './progress.ts';
import { failoverReport } from './views/failover-report.ts';

/** How often a display is brought up to date; a job's end is told by the site without waiting for it. */
const REFRESH_MS = 1000;

/** A site that is being restarted is waited for this way. */
const RECONNECT = { firstMs: 500, maximumMs: 5000, triesMax: 8 };

/** The failure that a record from the site stands for. */
function failureFrom({ code, message, kind, retry, hint, context }: FailureRecord): Failure {
  return new Failure(code, { kind, retry, remedy: hint }, message, { context });
}

/**
 * Follows a job to its end, if `wait`, and reports it. Throws the job's failure when it failed or was cancelled, and
 * CLI_WATCH_ENDED on an interrupt, which the job does not notice.
 */
export async function reportJob(
  context: Context,
  job: JobView,
  wait: boolean,
  print: (job: JobView) => Report,
): Promise<Report> {
  if (!wait) {
    return {
      document: job,
      print: (page) =>
        page.line(`Job ${job.jobId} is ${job.state}.`).line(`Look at it: warmsite job show ${job.jobId}`),
    };
  }
  const ended = await followJob(context, job);
  if (ended.failure) throw failureFrom(ended.failure);
  if (ended.state !== 'done') return { ...print(ended), exitCode: EXIT_FOUND_BAD };
  return print(ended);
}

/** As `reportJob`, of a job that boots something: its result is the report of that. */
export function reportFailover(context: Context, job: JobView, wait: boolean): Promise<Report> {
  return reportJob(context, job, wait, (ended) => failoverReport(ended, context.nowMs));
}

export function followJob(context: Context, job: JobView): Promise<JobView> {
  const { jobId } = job;
  const goesOn = `The job goes on at the site. Look: warmsite job show ${jobId} --wait. End it: warmsite job cancel ${jobId}`;
  return context.watching(`job ${jobId}`, goesOn, async (display, signal) => {
    for (let now = job; ; ) {
      if (now.state !== 'queued' && now.state !== 'running') return now;
      display.update(workOfJob(now));
      now = await patiently(context, display, signal, (api) =>
        api.call('job.show', { params: { job: jobId }, query: { waitMs: String(REFRESH_MS) }, signal }),
      );
    }
  });
}

function workOfJob({ kind, state, progress }: JobView): WorkState {
  const { step, ...amounts } = progress;
  return { step: step ?? (state === 'queued' ? `${kind}: waiting for its turn` : kind), ...amounts };
}

/**
 * Waits until the recovery site has verified a first point of the machine. Returns without one when none is on its way,
 * with the reason. Throws what blocks the replication.
 */
export function followSeeding(
  context: Context,
  machine: MachineView,
): Promise<{ machine: MachineView; waiting?: string }> {
  const { machineId, name } = machine;
  const goesOn = `The first copy goes on at the site. Look: warmsite vm show ${name}`;
  return context.watching(`the first copy of ${name}`, goesOn, async (display, signal) => {
    for (let now = machine, failure: string | undefined; ; ) {
      const replication = now.protected?.replication;
      if (!replication || replication.acknowledged) return { machine: now };
      if (replication.phase === 'blocked' && replication.failure) throw failureFrom(replication.failure);
      const waiting = reasonToWait(replication);
      if (waiting !== undefined) return { machine: now, waiting };
      if (replication.failure && replication.failure.message !== failure) {
        failure = replication.failure.message;
        display.note(`${replication.failure.code}: ${failure}; it is tried again`);
      }
      display.update(workOfReplication(replication));
      await sleep(context.world.clock, REFRESH_MS, signal);
      now = await patiently(context, display, signal, (api) =>
        api.call('vm.show', { params: { machine: machineId }, signal }),
      );
    }
  });
}

/** Why no copy is on its way, if none is. */
function reasonToWait({ phase, unsentCuts, nextDue, lastSkip, seed }: ReplicationView): string | undefined {
  if (seed === 'wanted') return 'its base goes by courier: `warmsite seed export` comes next';
  if (phase !== 'idle' || unsentCuts > 0) return undefined;
  if (lastSkip) return lastSkip.reason;
  return nextDue ? undefined : 'no copy is scheduled; make one with `warmsite point create`';
}

function workOfReplication({ phase, transfer }: ReplicationView): WorkState {
  if (!transfer)
    return { step: phase === 'cutting' ? 'making the first copy' : 'waiting for the first copy' };
  const { complete, bytesDone, bytesTotal, olderBytes, bytesPerSecond } = transfer;
  const step = complete ? 'seeding' : 'sending changes';
  return {
    ...{ step, bytesDone, bytesTotal },
    ...(olderBytes === undefined ? {} : { remark: olderWords(olderBytes) }),
    ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
  };
}

/** Goes on watching while the site is restarted; it may come back at another port. */
async function patiently<T>(
  context: Context,
  display: ProgressDisplay,
  signal: AbortSignal,
  work: (api: ApiClient) => Promise<T>,
): Promise<T> {
  const { clock, random } = context.world;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work(await context.api());
    } catch (error) {
      const isAway = isFailure(error, 'CLI_SITE_STOPPED', 'CLI_ANSWER_LATE');
      if (!isAway || attempt >= RECONNECT.triesMax) throw error;
      display.note(`${error.message}; trying again`);
      context.close();
      await sleep(clock, pauseMs(RECONNECT, attempt, random), signal);
    }
  }
}
