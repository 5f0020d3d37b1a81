import type { Command } from 'commander';
import { EXIT_FOUND_BAD } from '../context.ts';
import { printJob, printJobs } from '../views/job-view.ts';
import { followJob } from '../watch.ts';
import { examples, type Runner } from './runner.ts';

export function addJobCommands(program: Command, runner: Runner): void {
  const job = program.command('job').description('long work: list, look at, cancel');
  job
    .command('list')
    .description('list jobs')
    .addHelpText('after', examples('warmsite job list'))
    .action(
      runner.run(async (context) => {
        const jobs = await (await context.api()).call('job.list', {});
        return { document: jobs, print: (page) => printJobs(page, jobs, context.nowMs) };
      }),
    );
  job
    .command('show')
    .description('show a job; the exit code is 1 if it has failed')
    .argument('<job>', 'id')
    .option('--wait', 'follow it until it has ended')
    .addHelpText('after', examples('warmsite job show 01jh2v0m8v7d6e5f4g3h2j1k0m --wait'))
    .action(
      runner.run(async (context, jobId: string, o: { wait?: boolean }) => {
        const now = await (await context.api()).call('job.show', { params: { job: jobId } });
        const view = o.wait ? await followJob(context, now) : now;
        return {
          document: view,
          print: (page) => printJob(page, view, context.nowMs),
          ...(view.failure ? { exitCode: EXIT_FOUND_BAD } : {}),
        };
      }),
    );
  job
    .command('cancel')
    .description('end a job; what it had begun is cleaned up')
    .argument('<job>', 'id')
    .addHelpText('after', examples('warmsite job cancel 01jh2v0m8v7d6e5f4g3h2j1k0m'))
    .action(
      runner.run(async (context, jobId: string) => {
        const view = await (await context.api()).call('job.cancel', { params: { job: jobId } });
        return { document: view, print: (page) => printJob(page, view, context.nowMs) };
      }),
    );
}
