import type { Command } from 'commander';
import type { FailoverRequest, NicConnection, ProbeRequest, RestartRequest } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { invalid, listed, named, parseCount, parseDuration, parseWord } from '../values.ts';
import { failoverReport } from '../views/failover-report.ts';
import { printBranches } from '../views/job-view.ts';
import { reportJob } from '../watch.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

const CONSISTENCIES = ['crash', 'file-system', 'application'] as const;
const PROBE_HELP = 'agent, serial:REGEX or tcp:HOST:PORT, with @LIMIT if you like (agent@2m); repeatable';

export function addFailoverCommands(program: Command, runner: Runner): void {
  const failover = program
    .command('failover')
    .description('bring machines up from their points, at the recovery site');
  addTest(failover, runner);
  addStart(failover, runner);
  addRestart(failover, runner);
  failover
    .command('list')
    .description('list the branches of a machine: tests and failovers')
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
    .argument('<branch>', 'id, as `warmsite failover list` shows it')
    .option('--discard-writes', 'also when it is a real failover: its writes are gone for good')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText('after', examples('warmsite failover cleanup web 01jh2v0m8v7d6e5f4g3h2j1k0m'))
    .action(runner.run(cleanup));
}

/** `agent`, `serial:REGEX`, `tcp:HOST:PORT`, each with `@LIMIT`. */
function parseProbe(text: string): ProbeRequest {
  const [, body = text, limit] = /^(.*)@(\d[\d.]*[a-z]+)$/.exec(text) ?? [];
  const limitMs = limit === undefined ? {} : { limitMs: parseDuration(limit) };
  if (body === 'agent') return { kind: 'agent', ...limitMs };
  const [, pattern] = /^serial:(.+)$/.exec(body) ?? [];
  if (pattern !== undefined) return { kind: 'serial', pattern, ...limitMs };
  const [, host, port] = /^tcp:(.+):(\d+)$/.exec(body) ?? [];
  if (host !== undefined) return { kind: 'tcp', host, port: parseCount(port!, 1, 65_535), ...limitMs };
  throw invalid(text, 'a probe such as agent, serial:login: or tcp:192.0.2.10:443, with @LIMIT if you like');
}

/** `NIC=bridge:NAME` or `NIC=tap:NAME`. */
function parseConnection(text: string): readonly [nicId: string, NicConnection] {
  const [, nicId, kind, name] = /^([a-z0-9][a-z0-9-]*)=(bridge|tap):([A-Za-z0-9._-]{1,15})$/.exec(text) ?? [];
  if (nicId === undefined || name === undefined) {
    throw invalid(text, 'NIC=bridge:NAME or NIC=tap:NAME, such as lan=bridge:br0');
  }
  return [nicId, kind === 'tap' ? { kind, interfaceName: name } : { kind: 'bridge', bridge: name }];
}

const CONNECT_OPTION = [
  '--connect <NIC=bridge:NAME>',
  'plug a NIC into a bridge of this host, or NIC=tap:NAME; others stay unplugged; repeatable',
  listed('--connect', parseConnection),
] as const;

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

interface TestOptions extends WaitOption {
  readonly point?: string;
  readonly groupPoint?: string;
  readonly keep?: boolean;
  readonly probe?: readonly ProbeRequest[];
}

function addTest(failover: Command, runner: Runner): void {
  failover
    .command('test')
    .description('boot a point in an isolated network and see whether it runs; replication goes on')
    .argument('<vm>', 'name or id')
    .option('--point <point>', 'number, id, latest or latest-application; the best one if absent')
    .option(...GROUP_POINT_OPTION)
    .option('--keep', 'leave the machine running afterwards, until `warmsite failover cleanup`')
    .option('--probe <probe>', PROBE_HELP, listed('--probe', parseProbe))
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples(
        'warmsite failover test web',
        "warmsite failover test web --point 17 --probe agent --probe 'serial:login:@3m' --keep",
      )}
The exit code is 1 when the machine was booted and its probes failed.`,
    )
    .action(
      runner.run(async (context, machine: string, o: TestOptions) => {
        const body = {
          ...pointOf(o),
          ...(o.keep === undefined ? {} : { keep: o.keep }),
          ...(o.probe === undefined ? {} : { probes: [...o.probe] }),
        };
        const job = await (await context.api()).call('failover.test', { params: { machine }, body });
        return reportJob(context, job, o.wait, (ended) => failoverReport(ended, context.nowMs));
      }),
    );
}

interface StartOptions extends WaitOption {
  readonly point?: string;
  readonly groupPoint?: string;
  readonly atLeast?: (typeof CONSISTENCIES)[number];
  readonly confirmOtherSideDown?: boolean;
  readonly connect?: ReturnType<typeof parseConnection>[];
  readonly probe?: readonly ProbeRequest[];
}

function addStart(failover: Command, runner: Runner): void {
  const atLeast = named('--at-least', (text) => parseWord(text, CONSISTENCIES));
  failover
    .command('start')
    .description('unplanned failover: bring the machine up here for good, without the other site')
    .argument('<vm>', 'name or id')
    .option('--point <point>', 'number, id, latest or latest-application; the best one if absent')
    .option(...GROUP_POINT_OPTION)
    .option('--at-least <consistency>', CONSISTENCIES.join(', '), atLeast)
    .option('--probe <probe>', PROBE_HELP, listed('--probe', parseProbe))
    .option(...CONNECT_OPTION)
    .option('--confirm-other-side-down', 'your word that the machine no longer runs at the other site')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples(
        'warmsite failover start web --connect lan=bridge:br0',
        'warmsite failover start web --at-least application --confirm-other-side-down',
      )}
Warmsite cannot switch off a host that it cannot reach: were the machine still running there, two copies of it would
diverge. From this moment on the other site's copies of this machine are refused here.`,
    )
    .action(runner.run(start));
}

interface RestartOptions extends WaitOption {
  readonly connect?: ReturnType<typeof parseConnection>[];
  readonly probe?: readonly ProbeRequest[];
}

function addRestart(failover: Command, runner: Runner): void {
  failover
    .command('restart')
    .description('boot a branch that has ended again, on its own files: after a restart of this host, say')
    .argument('<vm>', 'name or id')
    .argument('<branch>', 'id, as `warmsite failover list` shows it')
    .option('--probe <probe>', PROBE_HELP, listed('--probe', parseProbe))
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
        const body: RestartRequest = {
          ...(o.probe === undefined ? {} : { probes: [...o.probe] }),
          ...(o.connect === undefined ? {} : { networks: Object.fromEntries(o.connect) }),
        };
        const job = await (await context.api()).call('failover.restart', {
          params: { machine, branch },
          body,
        });
        return reportJob(context, job, o.wait, (ended) => failoverReport(ended, context.nowMs));
      }),
    );
}

async function start(context: Context, machine: string, o: StartOptions): Promise<Report> {
  const api = await context.api();
  if (!o.confirmOtherSideDown) {
    const { name } = await api.call('vm.show', { params: { machine } });
    await context.confirm({
      question: `Are you sure that ${name} no longer runs at the other site? Two running copies diverge.`,
      word: name,
      option: '--confirm-other-side-down',
    });
  }
  const body: FailoverRequest = {
    ...pointOf(o),
    ...(o.atLeast === undefined ? {} : { atLeast: o.atLeast }),
    ...(o.probe === undefined ? {} : { probes: [...o.probe] }),
    ...(o.connect === undefined ? {} : { networks: Object.fromEntries(o.connect) }),
    confirmOtherSideDown: true,
  };
  const job = await api.call('failover.start', { params: { machine }, body });
  return reportJob(context, job, o.wait, (ended) => failoverReport(ended, context.nowMs));
}

async function cleanup(
  context: Context,
  machine: string,
  branch: string,
  o: WaitOption & { discardWrites?: boolean },
): Promise<Report> {
  const api = await context.api();
  const found = (await api.call('failover.list', { params: { machine } })).find(
    ({ branchId }) => branchId === branch,
  );
  if (!found) {
    throw cliFailure('CLI_USAGE', `${machine} has no branch ${branch}`, {
      hint: `List the branches: warmsite failover list ${machine}`,
    });
  }
  if (found.purpose === 'failover' && !o.discardWrites) {
    await context.confirm({
      question: `${branch} is a failover, not a test: everything written in it since would be gone for good.`,
      word: 'discard',
      option: '--discard-writes',
    });
  }
  const job = await api.call('failover.cleanup', { params: { machine, branch } });
  return reportJob(context, job, o.wait, (ended) => ({
    document: ended,
    print: (page) => page.line(`Branch ${branch} is gone, with its machine, network and writes.`),
  }));
}
