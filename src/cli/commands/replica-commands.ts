import type { Command } from 'commander';
import type { FloorView, MachineView } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { type TargetOptions, targetChangeOf, withTargetOptions } from '../policy-options.ts';
import { parseCalendar } from '../policy-values.ts';
import { named, parseName } from '../values.ts';
import { printMachine, printMachines } from '../views/machine-view.ts';
import { retentionLine } from '../views/policy-view.ts';
import { examples, type Runner } from './runner.ts';

export function addReplicaCommands(program: Command, runner: Runner): void {
  const replica = program.command('replica').description('what other sites replicate to this one');
  replica
    .command('list')
    .description('list the replicas that this site holds')
    .addHelpText('after', examples('warmsite replica list'))
    .action(
      runner.run(async (context) => {
        const machines = await (await context.api()).call('vm.list', {});
        const held = machines.filter((machine) => machine.replica !== undefined);
        return { document: held, print: (page) => printMachines(page, held, context.nowMs) };
      }),
    );
  replica
    .command('show')
    .description(
      'show a replica, who brings its points, and how far the sites are that they are forwarded to',
    )
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite replica show web'))
    .action(
      runner.run(async (context, machine: string) =>
        shown(context, await (await context.api()).call('vm.show', { params: { machine } })),
      ),
    );
  withTargetOptions(
    replica
      .command('forward')
      .description('forward the points of a replica to a third site, those there are and those to come'),
  )
    .argument('<vm>', 'name or id')
    .requiredOption('--to <site>', 'a paired site, by name or id')
    .option(
      '--points <types>',
      'points of these types alone: app,nightly; or all',
      named('--points', parsePointTypes),
    )
    .option('--stop', 'forward nothing more there; what the site has stays')
    .addHelpText(
      'after',
      `${examples(
        'warmsite replica forward web --to east',
        "warmsite replica forward web --to east --points app --keep-calendar 'daily:14,monthly:12 Europe/Berlin' --rate 2M/s",
        'warmsite replica forward web --to east --stop',
      )}
Said again, it changes what is named and leaves the rest. The other site asks its people once whether the key is right by which
the points are signed: \`warmsite origin confirm\` there. Unless it is said, it keeps what is kept here.`,
    )
    .action(runner.run(forward));
  replica
    .command('floor')
    .description('what this site keeps of every replica, whatever the sites say that send the points')
    .argument(
      '[periods]',
      'daily:7,weekly:4 Europe/Berlin, for example; or none',
      named('periods', parseCalendar),
    )
    .addHelpText(
      'after',
      `${examples(
        'warmsite replica floor',
        "warmsite replica floor 'hourly:12,daily:14,weekly:4 Europe/Berlin'",
        'warmsite replica floor none',
      )}
The newest point that arrived in each of so many hours, days, … by the clock of this site stays, on top of what the policy of a machine keeps.`,
    )
    .action(runner.run(floor));
  replica
    .command('remove')
    .description('remove a replica with all its points; protecting the machine again sends everything anew')
    .argument('<vm>', 'name or id; the id if it is broken')
    .option('--discard-points', 'your word that its points are not needed: they are gone for good')
    .addHelpText(
      'after',
      `${examples('warmsite replica remove web', 'warmsite replica remove web --discard-points')}
Refused while a branch, a test, a verification, a held point or a copy that comes in needs it, and while it is forwarded.`,
    )
    .action(runner.run(remove));
}

async function floor(
  context: Context,
  calendar: NonNullable<FloorView['calendar']> | 'none' | undefined,
): Promise<Report> {
  const api = await context.api();
  const view =
    calendar === undefined
      ? await api.call('replica.floor', {})
      : await api.call('replica.changeFloor', { body: { calendar: calendar === 'none' ? null : calendar } });
  const kept = view.calendar ? retentionLine({ types: {}, calendar: view.calendar }) : 'nothing';
  return { document: view, print: (page) => page.fields([['kept in any case', kept]]) };
}

interface ForwardOptions extends TargetOptions {
  readonly to: string;
  readonly points?: readonly string[] | 'all';
  readonly stop?: boolean;
}

function parsePointTypes(text: string): readonly string[] | 'all' {
  return text === 'all' ? text : text.split(',').map(parseName);
}

async function forward(context: Context, machine: string, o: ForwardOptions): Promise<Report> {
  const api = await context.api();
  const { to, points, stop, ...policy } = o;
  if (stop) {
    if (points !== undefined || Object.keys(policy).length > 0) {
      throw cliFailure('CLI_USAGE', '--stop goes alone');
    }
    return shown(context, await api.call('replica.unforward', { params: { machine, target: to } }));
  }
  const { replica } = await api.call('vm.show', { params: { machine } });
  const before = replica?.forwards?.find(({ siteId, name }) => siteId === to || name === to);
  const body = {
    ...targetChangeOf(policy, before?.retention ?? replica?.retention),
    ...(points === undefined ? {} : { copyTypes: points === 'all' ? null : [...points] }),
    to,
  };
  return shown(context, await api.call('replica.forward', { params: { machine }, body }));
}

function shown(context: Context, machine: MachineView): Report {
  return { document: machine, print: (page) => printMachine(page, machine, context.nowMs) };
}

async function remove(context: Context, machine: string, o: { discardPoints?: boolean }): Promise<Report> {
  const api = await context.api();
  if (!o.discardPoints) {
    await context.confirm({
      question: `All points of ${machine} at this site would be gone for good.`,
      word: machine,
      option: '--discard-points',
    });
  }
  const done = await api.call('replica.remove', { params: { machine } });
  return {
    document: done,
    print: (page) => page.line(`The replica of ${machine} is gone, with all its points.`),
  };
}
