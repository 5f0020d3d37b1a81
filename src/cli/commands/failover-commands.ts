import type { Command } from 'commander';
import type { FailoverRequest } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { orNone } from '../policy-values.ts';
import { named, parseDuration, parseWord } from '../values.ts';
import { reportFailover } from '../watch.ts';
import { addBranchCommands } from './branch-commands.ts';
import { addOnArrival } from './failover-arrival.ts';
import { addAddressOptions, addChangeOptions, type ChangeOptions, changesOf } from './failover-changes.ts';
import { addCheck } from './failover-check.ts';
import { addFencing, FENCE_OPTION, groundOf, hasGround } from './failover-fencing.ts';
import { addHandover } from './failover-handover.ts';
import {
  addLimitOptions,
  askedOf,
  CONNECT_OPTION,
  type ConnectOption,
  type LimitOptions,
  limitsOf,
  NAME_OPTION,
  networksOf,
  PROBE_OPTION,
  type ProbeOption,
} from './failover-options.ts';
import { addPrepare } from './failover-prepare.ts';
import { addRules } from './failover-rules.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

const CONSISTENCIES = ['crash', 'file-system', 'application'] as const;

export function addFailoverCommands(program: Command, runner: Runner): void {
  const failover = program
    .command('failover')
    .description('bring machines up from their points, at the recovery site');
  addCheck(failover, runner);
  addTest(failover, runner);
  addStart(failover, runner);
  addHandover(failover, runner);
  addBranchCommands(failover, runner);
  addPrepare(failover, runner);
  addOnArrival(failover, runner);
  addRules(failover, runner);
  addFencing(failover, runner);
}

const GROUP_POINT_OPTION = [
  '--group-point <cut>',
  'the point that belongs to this cut of a group, as `warmsite group points` shows it; or latest',
] as const;

function pointOf({ point, groupPoint }: { readonly point?: string; readonly groupPoint?: string }) {
  if (point !== undefined && groupPoint !== undefined) {
    throw cliFailure('CLI_USAGE', 'give either --point or --group-point');
  }
  const named = groupPoint === 'latest' ? 'latest-group' : (groupPoint ?? point);
  return named === undefined ? {} : { point: named };
}

interface TestOptions extends WaitOption, ProbeOption, LimitOptions, ChangeOptions {
  readonly name?: string;
  readonly point?: string;
  readonly groupPoint?: string;
  readonly branch?: string;
  readonly keep?: boolean;
}

function addTest(failover: Command, runner: Runner): void {
  const test = failover
    .command('test')
    .description('boot a point in an isolated network and see whether it runs; replication goes on')
    .argument('<vm>', 'name or id')
    .option('--point <point>', 'number, id, latest or latest-application; the best one if absent')
    .option(...GROUP_POINT_OPTION)
    .option('--branch <name>', 'in its place: what the machine wrote here before it was fenced')
    .option('--keep', 'leave the machine running afterwards, until `warmsite failover cleanup`')
    .option(...PROBE_OPTION)
    .option(...NAME_OPTION);
  addAddressOptions(addLimitOptions(test))
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples(
        'warmsite failover test web',
        "warmsite failover test web --point 17 --probe agent --probe 'serial:login:@3m' --keep",
        'warmsite failover test web --branch diverged-1 --keep',
      )}
The exit code is 1 when the machine was booted and its probes failed.`,
    )
    .action(
      runner.run(async (context, machine: string, o: TestOptions) => {
        const body = {
          ...pointOf(o),
          ...(o.keep === undefined ? {} : { keep: o.keep }),
          ...askedOf(o),
          ...limitsOf(o),
          // Its memory and CPUs are among its limits.
          ...changesOf({ ...o, memory: undefined, cpus: undefined }),
        };
        const api = await context.api();
        if (o.branch !== undefined && 'point' in body)
          throw cliFailure('CLI_USAGE', 'give either --branch or a point');
        const job =
          o.branch === undefined
            ? await api.call('failover.test', { params: { machine }, body })
            : await api.call('failover.testBranch', { params: { machine, branch: o.branch }, body });
        return reportFailover(context, job, o.wait);
      }),
    );
}

interface StartOptions extends WaitOption, ProbeOption, ConnectOption, ChangeOptions {
  readonly name?: string;
  readonly point?: string;
  readonly groupPoint?: string;
  readonly atLeast?: (typeof CONSISTENCIES)[number];
  readonly preferProven?: number | 'none';
  readonly preferApp?: number | 'none';
  readonly confirmOtherSideDown?: boolean;
  readonly askWitness?: boolean;
  readonly fence?: boolean;
}

function addStart(failover: Command, runner: Runner): void {
  const atLeast = named('--at-least', (text) => parseWord(text, CONSISTENCIES));
  const command = failover
    .command('start')
    .description('unplanned failover: bring the machine up here for good, without the other site')
    .argument('<vm>', 'name or id')
    .option('--point <point>', 'number, id, latest or latest-application; the best one if absent')
    .option(...GROUP_POINT_OPTION)
    .option('--at-least <consistency>', CONSISTENCIES.join(', '), atLeast)
    .option(
      '--prefer-proven <time>',
      'a point that is proven to boot, though it be so much older; or none',
      worth('--prefer-proven'),
    )
    .option(
      '--prefer-app <time>',
      'the same for an application-consistent one; or none',
      worth('--prefer-app'),
    )
    .option(...PROBE_OPTION)
    .option(...NAME_OPTION)
    .option(...CONNECT_OPTION);
  addChangeOptions(command)
    .option('--confirm-other-side-down', 'your word that the machine no longer runs at the other site')
    .option(
      '--ask-witness',
      'in its place: ask the witness of the machine, and wait until it cannot run there',
    )
    .option(...FENCE_OPTION)
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples(
        'warmsite failover start web --connect lan=bridge:br0',
        'warmsite failover start web --at-least application --confirm-other-side-down',
        'warmsite failover start web --prefer-proven 15m --confirm-other-side-down',
        'warmsite failover start web --memory 2G --new-macs --address lan=192.0.2.5/24,gateway=192.0.2.1',
      )}
Warmsite cannot switch off a host that it cannot reach: were the machine still running there, two copies of it would
diverge. A fencing program of yours can (--fence). From this moment on the other site's copies of this machine are refused here.`,
    )
    .action(runner.run(start));
}

/** A time, or `none`. */
function worth(option: string): (text: string) => number | 'none' {
  return named(option, orNone(parseDuration));
}

function wishOf({ atLeast, preferProven, preferApp }: StartOptions): Pick<FailoverRequest, 'wish'> {
  if (atLeast === undefined && preferProven === undefined && preferApp === undefined) return {};
  const msOf = (value: number | 'none') => (value === 'none' ? 0 : value);
  return {
    wish: {
      ...(atLeast === undefined ? {} : { atLeast }),
      ...(preferProven === undefined ? {} : { provenWorthMs: msOf(preferProven) }),
      ...(preferApp === undefined ? {} : { applicationWorthMs: msOf(preferApp) }),
    },
  };
}

async function start(context: Context, machine: string, o: StartOptions): Promise<Report> {
  const isSaid = hasGround(o);
  const api = await context.api();
  if (!isSaid) {
    const { name } = await api.call('vm.show', { params: { machine } });
    await context.confirm({
      question: `Are you sure that ${name} no longer runs at the other site? Two running copies diverge.`,
      word: name,
      option: '--confirm-other-side-down',
    });
  }
  const body: FailoverRequest = {
    ...pointOf(o),
    ...wishOf(o),
    ...askedOf(o),
    ...networksOf(o),
    ...changesOf(o),
    ...groundOf(o),
  };
  const job = await api.call('failover.start', { params: { machine }, body });
  return reportFailover(context, job, o.wait);
}
