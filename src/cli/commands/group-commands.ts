import type { Command } from 'commander';
import { cliFailure } from '../errors.ts';
import { named, parseDuration, parseInterval } from '../values.ts';
import { printCut, printGroup, printGroupPoints, printGroups } from '../views/group-view.ts';
import { addGroupFailovers } from './group-failover.ts';
import { examples, type Runner } from './runner.ts';

interface GroupOptions {
  readonly every?: number | 'off';
  readonly type?: string;
  readonly limit?: number;
  readonly members?: string;
}

export function addGroupCommands(program: Command, runner: Runner): void {
  const group = program
    .command('group')
    .description('machines that are copied at one instant: set up, cut, look at their points');
  addSetUp(group, runner);
  group
    .command('list')
    .description('list the groups of this site, and those whose points it holds')
    .addHelpText('after', examples('warmsite group list'))
    .action(
      runner.run(async (context) => {
        const groups = await (await context.api()).call('group.list', {});
        return { document: groups, print: (page) => printGroups(page, groups, context.nowMs) };
      }),
    );
  group
    .command('show')
    .description('show a group, its last cut or newest point')
    .argument('<group>', 'name or id')
    .addHelpText('after', examples('warmsite group show shop'))
    .action(
      runner.run(async (context, name: string) => {
        const view = await (await context.api()).call('group.show', { params: { group: name } });
        return { document: view, print: (page) => printGroup(page, view, context.nowMs) };
      }),
    );
  group
    .command('remove')
    .description('end a group; its machines stay protected, its points stay')
    .argument('<group>', 'name or id')
    .addHelpText('after', examples('warmsite group remove shop'))
    .action(
      runner.run(async (context, name: string) => {
        const done = await (await context.api()).call('group.remove', { params: { group: name } });
        return { document: done, print: (page) => page.line(`The group ${name} has ended.`) };
      }),
    );
  addPoints(group, runner);
  addGroupFailovers(group, runner);
}

function withOptions(command: Command): Command {
  return command
    .option(
      '--every <interval>',
      'how often the group is cut, such as 5m; or off',
      named('--every', parseInterval),
    )
    .option('--type <type>', 'with --every: crash, app or a type that all members have', 'crash')
    .option(
      '--limit <duration>',
      'longest time for which the machines may stand still (1s)',
      named('--limit', parseDuration),
    );
}

function addSetUp(group: Command, runner: Runner): void {
  withOptions(
    group
      .command('create')
      .description('make a group of protected machines with one target')
      .argument('<name>', 'what the group is called')
      .argument('<vm...>', 'names or ids'),
  )
    .addHelpText(
      'after',
      examples(
        'warmsite group create shop web db queue --every 5m',
        'warmsite group create erp erp-db erp-app',
      ),
    )
    .action(
      runner.run(async (context, name: string, members: string[], o: GroupOptions) => {
        const body = { name, members, ...bodyOf(o) };
        const view = await (await context.api()).call('group.create', { body });
        return { document: view, print: (page) => printGroup(page, view, context.nowMs) };
      }),
    );
  withOptions(
    group
      .command('change')
      .description('change the machines, the interval or the limit of a group')
      .argument('<group>', 'name or id')
      .option('--members <vms>', 'all members there shall be, separated by commas'),
  )
    .addHelpText(
      'after',
      examples('warmsite group change shop --members web,db', 'warmsite group change shop --every off'),
    )
    .action(
      runner.run(async (context, name: string, o: GroupOptions) => {
        const members = o.members?.split(',').map((member) => member.trim());
        const body = { ...bodyOf(o), ...(members ? { members } : {}) };
        if (Object.keys(body).length === 0) throw cliFailure('CLI_USAGE', 'nothing is to be changed');
        const view = await (await context.api()).call('group.change', { params: { group: name }, body });
        return { document: view, print: (page) => printGroup(page, view, context.nowMs) };
      }),
    );
}

function bodyOf({ every, type = 'crash', limit }: GroupOptions) {
  return {
    ...(every === undefined ? {} : { every: every === 'off' ? {} : { [type]: every } }),
    ...(limit === undefined ? {} : { limitMs: limit }),
  };
}

function addPoints(group: Command, runner: Runner): void {
  group
    .command('cut')
    .description('cut all machines of a group now, at one instant; at the site where they run')
    .argument('<group>', 'name or id')
    .option('--type <type>', 'crash, app or a type that all members have', 'crash')
    .addHelpText('after', examples('warmsite group cut shop', 'warmsite group cut shop --type app'))
    .action(
      runner.run(async (context, name: string, o: { type: string }) => {
        const api = await context.api();
        const cut = await api.call('group.cut', { params: { group: name }, body: { type: o.type } });
        return {
          document: cut,
          print: (page) => printCut(page, cut),
          ...(cut.together ? {} : { exitCode: 1 }),
        };
      }),
    );
  group
    .command('points')
    .description('list the cuts of a group of which this site holds the verified points of all machines')
    .argument('<group>', 'name or id')
    .addHelpText('after', examples('warmsite group points shop'))
    .action(
      runner.run(async (context, name: string) => {
        const points = await (await context.api()).call('group.points', { params: { group: name } });
        return { document: points, print: (page) => printGroupPoints(page, points, context.nowMs) };
      }),
    );
}
