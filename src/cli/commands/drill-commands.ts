import type { Command } from 'commander';
import type { DrillBudgetRequest, DrillPolicyShape, WindowShape } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { orNone, parseWindow } from '../policy-values.ts';
import { invalid, listed, named, parseCount, parseDuration, parseName, parseSize } from '../values.ts';
import { printDrillPolicy, printDrillStatus, printDrills } from '../views/drill-view.ts';
import { reportFailover } from '../watch.ts';
import { PROBE_OPTION, type ProbeOption } from './failover-options.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

export function addDrillCommands(program: Command, runner: Runner): void {
  const drill = program
    .command('drill')
    .description('points that this site boots in isolation by itself, so that they are proven');
  addLooking(drill, runner);
  addNow(drill, runner);
  addPause(drill, runner);
  addPolicy(drill, runner);
  addBudget(drill, runner);
}

function addLooking(drill: Command, runner: Runner): void {
  drill
    .command('status')
    .description('how machines stand with their proofs, and what drills may take')
    .addHelpText('after', examples('warmsite drill status'))
    .action(
      runner.run(async (context) => {
        const status = await (await context.api()).call('drill.status', {});
        return { document: status, print: (page) => printDrillStatus(page, status, context.nowMs) };
      }),
    );
  drill
    .command('list')
    .description('the drills of a machine, the newest first')
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite drill list web'))
    .action(
      runner.run(async (context, machine: string) => {
        const drills = await (await context.api()).call('drill.list', { params: { machine } });
        return { document: drills, print: (page) => printDrills(page, drills, context.nowMs) };
      }),
    );
}

function addNow(drill: Command, runner: Runner): void {
  drill
    .command('now')
    .description('drill a point at once, whatever is paused, quiet or full')
    .argument('<vm>', 'name or id')
    .argument('[point]', 'as for failover test; the newest that would be drilled by itself if absent')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText('after', examples('warmsite drill now web', 'warmsite drill now web 17 --no-wait'))
    .action(
      runner.run(async (context, machine: string, point: string | undefined, { wait }: WaitOption) => {
        const body = point === undefined ? {} : { point };
        const job = await (await context.api()).call('drill.now', { params: { machine }, body });
        return reportFailover(context, job, wait);
      }),
    );
}

function addPause(drill: Command, runner: Runner): void {
  for (const [name, isPaused, does] of [
    ['pause', true, 'let no drill begin by itself'],
    ['resume', false, 'let drills begin by themselves again'],
  ] as const) {
    drill
      .command(name)
      .description(`${does}: of a machine, or of all`)
      .argument('[vm]', 'name or id; all machines if absent')
      .addHelpText('after', examples(`warmsite drill ${name}`, `warmsite drill ${name} web`))
      .action(
        runner.run(async (context, machine: string | undefined) => {
          const body = { isPaused, ...(machine === undefined ? {} : { machine }) };
          const status = await (await context.api()).call('drill.pause', { body });
          return { document: status, print: (page) => printDrillStatus(page, status, context.nowMs) };
        }),
      );
  }
}

interface PolicyOptions extends ProbeOption {
  readonly copyType?: string[];
  readonly others?: boolean;
  readonly othersEvery?: number;
  readonly othersInterval?: number;
  readonly within?: number;
  readonly memory?: number;
  readonly on?: boolean;
  readonly off?: boolean;
}

const WITHIN_MS = 86_400_000;

function addPolicy(drill: Command, runner: Runner): void {
  drill
    .command('policy')
    .description('which points are drilled; without options: show it')
    .argument('[vm]', 'name or id; for all machines that have no policy of their own if absent')
    .option('--on', 'each application-consistent point, as soon as there is room')
    .option(
      '--copy-type <type>',
      'each point of this type instead; repeatable',
      listed('--copy-type', parseName),
    )
    .option('--others', 'the newest of the other points too, whenever there is room')
    .option(
      '--others-every <count>',
      'the same, after so many points',
      named('--others-every', (text) => parseCount(text, 1, 1_000_000)),
    )
    .option(
      '--others-interval <time>',
      'the same, no more often than this',
      named('--others-interval', parseDuration),
    )
    .option(
      '--within <time>',
      'raise an alert when a proof is missing for so long; 24h if absent',
      named('--within', parseDuration),
    )
    .option('--memory <size>', 'boot it with other memory than the machine has', named('--memory', parseSize))
    .option(...PROBE_OPTION)
    .option('--off', 'drill no point')
    .option('--as-all', 'of a machine: as for all machines again')
    .addHelpText(
      'after',
      examples(
        'warmsite drill policy --on',
        'warmsite drill policy web --copy-type app --within 4h --probe agent@5m',
        'warmsite drill policy web --on --others-interval 6h',
        'warmsite drill policy web --off',
      ),
    )
    .action(runner.run(changePolicy));
}

async function changePolicy(
  context: Context,
  machine: string | undefined,
  { asAll, off, ...options }: PolicyOptions & { readonly asAll?: boolean },
): Promise<Report> {
  const changes = Object.values(options).some((value) => value !== undefined);
  if ([asAll, off, changes].filter(Boolean).length > 1) {
    throw cliFailure('CLI_USAGE', 'give --off or --as-all alone, or say what is drilled');
  }
  if (asAll && machine === undefined) throw cliFailure('CLI_USAGE', '--as-all is for one machine');
  const api = await context.api();
  if (machine === undefined) {
    const status = changes
      ? await api.call('drill.setSitePolicy', { body: policyOf(options) })
      : off
        ? await api.call('drill.clearSitePolicy', {})
        : await api.call('drill.status', {});
    const view = { policy: status.sitePolicy, from: 'site' as const };
    return { document: view, print: (page) => printDrillPolicy(page, undefined, view) };
  }
  const params = { machine };
  const view =
    changes || off
      ? await api.call('drill.setPolicy', { params, body: { policy: off ? null : policyOf(options) } })
      : await api.call(asAll ? 'drill.clearPolicy' : 'drill.policy', { params });
  return { document: view, print: (page) => printDrillPolicy(page, machine, view) };
}

function policyOf(o: PolicyOptions): DrillPolicyShape {
  const { othersEvery, othersInterval } = o;
  const hasOthers = o.others || othersEvery !== undefined || othersInterval !== undefined;
  return {
    ...(o.copyType ? { copyTypes: [...o.copyType] } : {}),
    ...(hasOthers
      ? {
          others: {
            ...(othersEvery === undefined ? {} : { everyPoints: othersEvery }),
            ...(othersInterval === undefined ? {} : { everyMs: othersInterval }),
          },
        }
      : {}),
    proveWithinMs: o.within ?? WITHIN_MS,
    ...(o.probe ? { probes: [...o.probe] } : {}),
    ...(o.memory === undefined ? {} : { memoryBytes: o.memory }),
  };
}

interface BudgetOptions {
  readonly memory?: number;
  readonly atOnce?: number;
  readonly cpuLimit?: number | 'none';
  readonly cpuWeight?: number | 'none';
  readonly quiet?: readonly (WindowShape | 'none')[];
}

function addBudget(drill: Command, runner: Runner): void {
  drill
    .command('budget')
    .description('show or change what all drills of this site may take together')
    .option('--memory <size>', 'of the guests that run at once', named('--memory', parseSize))
    .option(
      '--at-once <count>',
      'so many run at once',
      named('--at-once', (text) => parseCount(text, 1, 1000)),
    )
    .option(
      '--cpu-limit <percent>',
      'of one CPU of this host, for all together; 200% are two; or none',
      named(
        '--cpu-limit',
        orNone((text) => parseCount(text.replace(/%$/, ''), 1, 100_000)),
      ),
    )
    .option(
      '--cpu-weight <weight>',
      'the share of each while others want the CPUs too; 100 is usual; or none',
      named(
        '--cpu-weight',
        orNone((text) => parseCount(text, 1, 10_000)),
      ),
    )
    .option(
      '--quiet <hours>',
      'hours in which none begins by itself, or none; repeatable',
      listed('--quiet', orNone(parseWindow)),
    )
    .addHelpText(
      'after',
      examples(
        'warmsite drill budget',
        'warmsite drill budget --memory 8G --at-once 2 --cpu-limit 100%',
        "warmsite drill budget --quiet 'Mon-Fri 08:00-18:00 Europe/Berlin'",
      ),
    )
    .action(
      runner.run(async (context, options: BudgetOptions) => {
        const body = budgetOf(options);
        const api = await context.api();
        const status =
          Object.keys(body).length === 0
            ? await api.call('drill.status', {})
            : await api.call('drill.budget', { body });
        return { document: status, print: (page) => printDrillStatus(page, status, context.nowMs) };
      }),
    );
}

function budgetOf({ memory, atOnce, cpuLimit, cpuWeight, quiet }: BudgetOptions): DrillBudgetRequest {
  const windows = quiet?.filter((one): one is WindowShape => one !== 'none');
  if (quiet && windows && windows.length < quiet.length && quiet.length > 1) {
    throw invalid('none', 'something that can be given beside hours');
  }
  const orNull = (value: number | 'none') => (value === 'none' ? null : value);
  return {
    ...(memory === undefined ? {} : { memoryBytes: memory }),
    ...(atOnce === undefined ? {} : { atOnce }),
    ...(cpuLimit === undefined ? {} : { cpuPercent: orNull(cpuLimit) }),
    ...(cpuWeight === undefined ? {} : { cpuWeight: orNull(cpuWeight) }),
    ...(windows ? { quiet: windows } : {}),
  };
}
