import type { Command } from 'commander';
import type { FailOverGroupRequest, GroupJobs, JobView, NicConnection } from '../../api/index.ts';
import { type Context, EXIT_FOUND_BAD, type Report } from '../context.ts';
import type { Page } from '../page.ts';
import { invalid, listed } from '../values.ts';
import { followJob } from '../watch.ts';
import { FENCE_OPTION, groundOf, hasGround } from './failover-fencing.ts';
import { askedOf, NAME_OPTION, PROBE_OPTION, type ProbeOption, parseConnection } from './failover-options.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

interface GroupBootOptions extends WaitOption, ProbeOption {
  readonly cut?: string;
  readonly name?: string;
  readonly keep?: boolean;
  readonly connect?: readonly MemberConnection[];
  readonly confirmOtherSideDown?: boolean;
  readonly askWitness?: boolean;
  readonly fence?: boolean;
}

type MemberConnection = readonly [machine: string, nicId: string, connection: NicConnection];

/** `MACHINE/NIC=bridge:NAME`. */
function parseMemberConnection(text: string): MemberConnection {
  const [, machine, rest] = /^([^/]+)\/(.+)$/.exec(text) ?? [];
  if (machine === undefined || rest === undefined) {
    throw invalid(text, 'MACHINE/NIC=bridge:NAME, such as web/lan=bridge:br0');
  }
  return [machine, ...parseConnection(rest)];
}

/** All machines of a group brought up at the recovery site, from one cut. */
export function addGroupFailovers(group: Command, runner: Runner): void {
  withBootOptions(
    group.command('test').description('boot all machines of a group in isolation, from one cut of them'),
  )
    .option('--keep', 'leave them running until they are cleaned up')
    .addHelpText(
      'after',
      `${examples('warmsite group test shop', 'warmsite group test shop --keep --name friday')}
Each machine has an isolated network of its own.`,
    )
    .action(runner.run(test));
  withBootOptions(
    group.command('failover').description('bring all machines of a group up here, from one cut of them'),
  )
    .option(
      '--connect <MACHINE/NIC=bridge:NAME>',
      'plug a NIC of a machine into a bridge of this host, or NIC=tap:NAME; repeatable',
      listed('--connect', parseMemberConnection),
    )
    .option('--confirm-other-side-down', 'your word that none of them runs at the other site any more')
    .option('--ask-witness', 'in its place: ask the witness of each, and wait until it cannot run there')
    .option(...FENCE_OPTION)
    .addHelpText(
      'after',
      examples(
        'warmsite group failover shop --confirm-other-side-down',
        'warmsite group failover shop --connect web/lan=bridge:br0 --connect db/lan=bridge:br0',
      ),
    )
    .action(runner.run(failover));
}

function withBootOptions(command: Command): Command {
  return command
    .argument('<group>', 'name or id')
    .option('--cut <cut>', 'the id of a cut, see `group points`; the newest that is whole here if absent')
    .option(...NAME_OPTION)
    .option(...PROBE_OPTION)
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait);
}

async function test(context: Context, group: string, o: GroupBootOptions): Promise<Report> {
  const body = { ...whatOf(o), ...(o.keep ? { keep: true } : {}) };
  const begun = await (await context.api()).call('group.test', { params: { group }, body });
  return reportJobs(context, begun, o.wait);
}

async function failover(context: Context, group: string, o: GroupBootOptions): Promise<Report> {
  if (!hasGround(o)) {
    await context.confirm({
      question: `Do all machines of ${group} stand still at the other site? If one runs there, both copies take writes.`,
      word: group,
      option: '--confirm-other-side-down',
    });
  }
  const networks: Record<string, Record<string, NicConnection>> = {};
  for (const [machine, nicId, connection] of o.connect ?? []) {
    networks[machine] = { ...networks[machine], [nicId]: connection };
  }
  const body: FailOverGroupRequest = {
    ...whatOf(o),
    ...groundOf(o),
    ...(o.connect ? { networks } : {}),
  };
  const begun = await (await context.api()).call('group.failover', { params: { group }, body });
  return reportJobs(context, begun, o.wait);
}

function whatOf({ cut, ...o }: GroupBootOptions) {
  return { ...askedOf(o), ...(cut === undefined ? {} : { cut }) };
}

/** Follows all jobs to their ends, if `wait`; bad if one of the machines did not come up, or was not begun. */
async function reportJobs(context: Context, begun: GroupJobs, wait: boolean): Promise<Report> {
  const jobs: GroupJobs['jobs'] = [];
  for (const one of begun.jobs) jobs.push(wait ? { ...one, job: await followJob(context, one.job) } : one);
  const isBad = begun.failures !== undefined || (wait && jobs.some(({ job }) => verdictOf(job) === 'failed'));
  return {
    document: { ...begun, jobs },
    print: (page) => printJobs(page, { ...begun, jobs }),
    ...(isBad ? { exitCode: EXIT_FOUND_BAD } : {}),
  };
}

function printJobs(page: Page, { cutId, jobs, failures = [] }: GroupJobs): void {
  page.line(`Cut ${cutId}:`);
  page.table(
    [{ head: 'MACHINE' }, { head: 'VERDICT' }, { head: 'BRANCH' }, { head: 'JOB' }],
    jobs.map(({ name, job }) => [name, verdictOf(job), branchOf(job), job.jobId]),
  );
  for (const { name, job } of jobs) {
    if (job.failure) page.line({ text: `${name}: ${job.failure.message}`, tone: 'bad' });
  }
  for (const { name, failure } of failures) {
    page.line({ text: `${name} was not begun: ${failure.message}`, tone: 'bad' }).line(`  ${failure.hint}`);
  }
  page.line('Look at one: warmsite job show JOB');
  if (failures.length > 0) {
    page.line(
      `Begin one that was not, by itself: warmsite failover start|test MACHINE --group-point ${cutId}`,
    );
  }
}

function verdictOf({ state, result }: JobView): string {
  if (state === 'queued' || state === 'running') return state;
  const { verdict } = (result ?? {}) as { verdict?: string };
  return state === 'done' ? (verdict ?? 'failed') : 'failed';
}

function branchOf({ result }: JobView): string {
  const { branchId } = (result ?? {}) as { branchId?: string | null };
  return branchId ?? '';
}
