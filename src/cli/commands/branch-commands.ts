import type { Command } from 'commander';
import type { ForwardRequest, RestartRequest } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { formatBytes } from '../format.ts';
import type { Page } from '../page.ts';
import { named, parseDuration } from '../values.ts';
import { printBranches } from '../views/job-view.ts';
import { reportFailover, reportJob } from '../watch.ts';
import {
  askedOf,
  CONNECT_OPTION,
  type ConnectOption,
  NAME_OPTION,
  networksOf,
  PROBE_OPTION,
  type ProbeOption,
} from './failover-options.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

const BRANCH = 'name or id, as `warmsite failover list` shows it';

/** What is done with branches that are there. */
export function addBranchCommands(failover: Command, runner: Runner): void {
  addRestart(failover, runner);
  addStop(failover, runner);
  addForward(failover, runner);
  addExport(failover, runner);
  failover
    .command('list')
    .description(
      'list the branches of a machine: tests, failovers, and what it wrote here before it was fenced',
    )
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite failover list web'))
    .action(
      runner.run(async (context, machine: string) => {
        const branches = await (await context.api()).call('failover.list', { params: { machine } });
        return { document: branches, print: (page) => printBranches(page, branches, context.nowMs) };
      }),
    );
  failover
    .command('cleanup')
    .description('end a branch: its machine, its network and everything that was written in it')
    .argument('<vm>', 'name or id')
    .argument('<branch>', BRANCH)
    .option(
      '--discard-writes',
      'also when it is a real failover, or what was written before a fence: its writes are gone for good',
    )
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText('after', examples('warmsite failover cleanup web 01jh2v0m8v7d6e5f4g3h2j1k0m'))
    .action(runner.run(cleanup));
}

type RestartOptions = WaitOption & ConnectOption & ProbeOption;

function addRestart(failover: Command, runner: Runner): void {
  failover
    .command('restart')
    .description('boot a branch that has ended again, on its own files: after a restart of this host, say')
    .argument('<vm>', 'name or id')
    .argument('<branch>', BRANCH)
    .option(...PROBE_OPTION)
    .option(...CONNECT_OPTION)
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples('warmsite failover restart web 01jh2v0m8v7d6e5f4g3h2j1k0m --connect lan=bridge:br0')}
A test boots in its isolated network; of a failover, name the NICs again: none is plugged in unasked.`,
    )
    .action(
      runner.run(async (context, machine: string, branch: string, o: RestartOptions) => {
        const body: RestartRequest = { ...askedOf(o), ...networksOf(o) };
        const job = await (await context.api()).call('failover.restart', {
          params: { machine, branch },
          body,
        });
        return reportFailover(context, job, o.wait);
      }),
    );
}

interface GraceOptions {
  readonly grace?: number;
  readonly now?: boolean;
}

function graceOf(o: GraceOptions): { graceMs?: number } {
  const graceMs = o.now ? 0 : o.grace;
  return graceMs === undefined ? {} : { graceMs };
}

function addStop(failover: Command, runner: Runner): void {
  failover
    .command('stop')
    .description('end the machine of a branch and keep what was written in it')
    .argument('<vm>', 'name or id')
    .argument('<branch>', BRANCH)
    .option('--grace <time>', 'cut the power after this time; 1m if absent', named('--grace', parseDuration))
    .option('--now', 'cut the power at once')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples('warmsite failover stop web friday', 'warmsite failover stop web friday --now')}
Boot it again with warmsite failover restart.`,
    )
    .action(
      runner.run(async (context, machine: string, branch: string, o: WaitOption & GraceOptions) => {
        const params = { machine, branch };
        const job = await (await context.api()).call('failover.stop', { params, body: graceOf(o) });
        return reportJob(context, job, o.wait, (ended) => ({
          document: ended,
          print: (page) => page.line(`Branch ${branch}: ${endOf(ended.result)}. Its writes are kept.`),
        }));
      }),
    );
}

function endOf(result: unknown): string {
  const { ended } = (result ?? {}) as { ended?: unknown };
  if (ended === 'not-running') return 'it was not running';
  return ended === 'shut-down' ? 'the guest has shut down' : 'its power was cut';
}

function addExport(failover: Command, runner: Runner): void {
  failover
    .command('export')
    .description('write the disks of a branch that does not run to files, which can be mounted read-only')
    .argument('<vm>', 'name or id')
    .argument('<branch>', BRANCH)
    .argument('<directory>', 'at the host of the site; a directory of the branch is made in it')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples('warmsite failover export web diverged-1 /srv/compare')}
The files are raw images, sparse and not to be written to; the branch stays as it is. Mount them with mount -o ro,loop, or give them to
guestmount --ro.`,
    )
    .action(
      runner.run(async (context, machine: string, branch: string, directory: string, o: WaitOption) => {
        const api = await context.api();
        const body = { path: context.path(directory) };
        const job = await api.call('failover.export', { params: { machine, branch }, body });
        return reportJob(context, job, o.wait, (ended) => ({
          document: ended,
          print: (page) => printExported(page, ended.result),
        }));
      }),
    );
}

function printExported(page: Page, result: unknown): void {
  const { directory, disks = [] } = (result ?? {}) as {
    directory?: string;
    disks?: readonly { readonly file: string; readonly sizeBytes: number }[];
  };
  for (const { file, sizeBytes } of disks)
    page.line({ text: 'Exported: ', tone: 'good' }, `${directory}/${file} (${formatBytes(sizeBytes)}).`);
}

interface ForwardOptions extends WaitOption, GraceOptions, ConnectOption, ProbeOption {
  readonly to?: string;
  readonly keep?: boolean;
  readonly discardWrites?: boolean;
  readonly name?: string;
}

function addForward(failover: Command, runner: Runner): void {
  failover
    .command('forward')
    .description('go from the point of a branch to a later one that is here already; nothing is sent for it')
    .argument('<vm>', 'name or id')
    .argument('<branch>', BRANCH)
    .option('--to <point>', 'number, id or latest; the very next point if absent')
    .option('--keep', 'keep the old branch, stopped, beside the new one (a failover is kept anyway)')
    .option('--discard-writes', 'also of a real failover: its writes are gone for good once the new one runs')
    .option(
      '--grace <time>',
      'cut the old machine’s power after this time; 1m if it is kept, at once if not',
      named('--grace', parseDuration),
    )
    .option('--now', 'cut its power at once')
    .option(...NAME_OPTION)
    .option(...PROBE_OPTION)
    .option(...CONNECT_OPTION)
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples(
        'warmsite failover forward web friday',
        'warmsite failover forward web friday --to 19 --keep --name friday-noon',
      )}
What was written in the old branch does not go along: the later point is run as it was cut.`,
    )
    .action(
      runner.run(async (context, machine: string, branch: string, o: ForwardOptions) => {
        if (o.keep && o.discardWrites)
          throw cliFailure('CLI_USAGE', 'give either --keep or --discard-writes');
        const body: ForwardRequest = {
          ...(o.to === undefined ? {} : { to: o.to }),
          ...(o.keep ? { oldBranch: 'keep' } : {}),
          ...(o.discardWrites ? { oldBranch: 'discard' } : {}),
          ...graceOf(o),
          ...askedOf(o),
          ...networksOf(o),
        };
        const api = await context.api();
        const job = await api.call('failover.forward', { params: { machine, branch }, body });
        return reportFailover(context, job, o.wait);
      }),
    );
}

async function cleanup(
  context: Context,
  machine: string,
  branch: string,
  o: WaitOption & { discardWrites?: boolean },
): Promise<Report> {
  const api = await context.api();
  const found = (await api.call('failover.list', { params: { machine } })).find(
    ({ branchId, name }) => branchId === branch || name === branch,
  );
  if (!found) {
    throw cliFailure('CLI_USAGE', `${machine} has no branch ${branch}`, {
      hint: `List the branches: warmsite failover list ${machine}`,
    });
  }
  if ((found.purpose === 'failover' || found.purpose === 'diverged') && !o.discardWrites) {
    const what =
      found.purpose === 'failover'
        ? 'a failover, not a test: everything written in it since'
        : `what ${machine} wrote here and no other site has: all of it`;
    await context.confirm({
      question: `${branch} is ${what} would be gone for good.`,
      word: 'discard',
      option: '--discard-writes',
    });
  }
  const job = await api.call('failover.cleanup', { params: { machine, branch } });
  return reportJob(context, job, o.wait, (ended) => ({
    document: ended,
    print: (page) =>
      page.line(
        found.purpose === 'diverged'
          ? `Branch ${branch} is gone, with what was written in it. Files that the machine had before it was protected are where they were.`
          : `Branch ${branch} is gone, with its machine, network and writes.`,
      ),
  }));
}
