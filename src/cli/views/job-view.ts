import type { BranchView, JobView } from '../../api/index.ts';
import { formatAge, formatBytes, formatDuration, formatTime } from '../format.ts';
import type { Cell, Page, Tone } from '../page.ts';

const STATE_TONES: Readonly<Record<JobView['state'], Tone>> = {
  queued: 'plain',
  running: 'strong',
  done: 'good',
  failed: 'bad',
  cancelled: 'warning',
};

export function printJobs(page: Page, jobs: readonly JobView[], nowMs: number): void {
  if (jobs.length === 0) {
    page.line('No jobs.');
    return;
  }
  page.table(
    [
      { head: 'ID' },
      { head: 'KIND' },
      { head: 'STATE' },
      { head: 'CREATED' },
      { head: 'TOOK', align: 'right' },
      { head: 'BY' },
      { head: 'OUTCOME' },
    ],
    jobs.map((job) => [
      job.jobId,
      job.kind,
      { text: job.state, tone: STATE_TONES[job.state] },
      formatAge(job.createdAtMs, nowMs),
      tookOf(job, nowMs),
      job.actor,
      job.failure ? job.failure.message : (job.progress.step ?? ''),
    ]),
  );
}

export function printJob(page: Page, job: JobView, nowMs: number): void {
  page.title(`Job ${job.jobId}`).fields([
    ['kind', job.kind],
    ['state', { text: job.state, tone: STATE_TONES[job.state] }],
    ['step', job.progress.step],
    ['machine', job.machineId],
    ['by', job.actor],
    ['created', formatTime(job.createdAtMs)],
    ['took', tookOf(job, nowMs)],
    ['arguments', Object.keys(job.args).length === 0 ? undefined : JSON.stringify(job.args)],
    ['failure', job.failure && { text: `${job.failure.message} (${job.failure.code})`, tone: 'bad' }],
    ['what to do', job.failure?.hint],
    ['result', job.result === undefined ? undefined : JSON.stringify(job.result)],
  ]);
}

function tookOf({ startedAtMs, endedAtMs }: JobView, nowMs: number): string | undefined {
  return startedAtMs === undefined
    ? undefined
    : formatDuration(Math.max(0, (endedAtMs ?? nowMs) - startedAtMs));
}

export function printBranches(page: Page, branches: readonly BranchView[], nowMs: number): void {
  if (branches.length === 0) {
    page.line('No branches: nothing was brought up here, and nothing was set apart.');
    return;
  }
  page.table(
    [
      { head: 'BRANCH' },
      { head: 'NAME' },
      { head: 'PURPOSE' },
      { head: 'POINT', align: 'right' },
      { head: 'STATE' },
      { head: 'PROCESS' },
      { head: 'WRITES', align: 'right' },
      { head: 'AGE', align: 'right' },
      { head: 'ENDS IN', align: 'right' },
    ],
    branches.map((branch) => [
      branch.branchId,
      branch.name ?? '',
      branch.purpose,
      branch.sequence === undefined ? (branch.pointId ?? '') : String(branch.sequence),
      branch.adopted ? 'at home here' : branch.state,
      processOf(branch),
      formatBytes(branch.ownBytes),
      formatDuration(Math.max(0, nowMs - branch.createdAtMs)),
      branch.endsAtMs === undefined ? '' : formatDuration(Math.max(0, branch.endsAtMs - nowMs)),
    ]),
  );
  for (const branch of branches) if (branch.purpose === 'diverged') page.line('').line(divergedLine(branch));
}

/** What a branch that diverged is, since the table cannot tell. */
function divergedLine({ name, sequence, divergedAtMs, createdAtMs, ownBytes }: BranchView): string {
  const since = divergedAtMs === undefined ? '' : ` of ${formatTime(divergedAtMs)}`;
  const from =
    sequence === undefined
      ? 'what the machine had here; no copy of it is known to have arrived anywhere'
      : `what the machine wrote here after point ${sequence}${since}, which is the last that the other site had of it`;
  return `${name}: ${from}; this site heard on ${formatTime(createdAtMs)} that it runs there. It takes ${formatBytes(ownBytes)}, and stays until you remove it.`;
}

function processOf({ running, processId, paused }: BranchView): Cell {
  if (!running) return 'stopped';
  if (paused) return { text: 'stands still: the disk is nearly full', tone: 'warning' };
  return { text: processId === undefined ? 'running' : `running (${processId})`, tone: 'good' };
}
