import type { Command } from 'commander';
import type { CopyTypeShape, MachineView } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import {
  type CopyTypeOptions,
  copyTypeFromFile,
  copyTypeFromOptions,
  parseAssertion,
  parseProgram,
} from '../copy-type-description.ts';
import { cliFailure } from '../errors.ts';
import { listed, named, parseDuration, parseWord } from '../values.ts';
import { printCopyTypes } from '../views/copy-type-view.ts';
import { examples, type Runner } from './runner.ts';

const AIMS = ['crash', 'application'] as const;

const LIMIT_MS = 30_000;

interface AddOptions extends CopyTypeOptions {
  readonly from?: string;
  readonly replace?: boolean;
}

/** The site takes the copy types of a machine as a whole: one is put among those there are, or taken from them. */
export function addCopyTypeCommands(vm: Command, runner: Runner): void {
  const types = vm.command('copy-type').description('kinds of copies of a machine: list, define, remove');
  types
    .command('list')
    .description('list the copy types of a machine, those that every machine has and its own')
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite vm copy-type list web'))
    .action(runner.run(async (context, machine: string) => shown(await view(context, machine))));
  types
    .command('add')
    .description('define a copy type for a machine; schedules and retention may name it from then on')
    .argument('<vm>', 'name or id')
    .argument('<type>', 'its name')
    .option(
      '--aim <aim>',
      'application: the guest is frozen for the cut; crash: it is not (default: application)',
      named('--aim', (text) => parseWord(text, AIMS)),
    )
    .option('--description <text>', 'what it is for')
    .option(
      '--before <program>',
      'hook: run in the guest before the freeze, without a shell',
      named('--before', parseProgram),
    )
    .option('--after <program>', 'hook: run after the thaw', named('--after', parseProgram))
    .option(
      '--on-failure <program>',
      'hook: run last if anything failed',
      named('--on-failure', parseProgram),
    )
    .option(
      '--assert <NAME=program>',
      'must end with exit code 0 in a test of a point; repeatable',
      listed('--assert', parseAssertion),
    )
    .option(
      '--limit <duration>',
      'how long each of these programs may take',
      named('--limit', parseDuration),
      LIMIT_MS,
    )
    .option('--from <file>', 'take all of it but the name from a JSON file')
    .option('--replace', 'redefine the type if there is one of this name')
    .addHelpText(
      'after',
      examples(
        "warmsite vm copy-type add erp nightly --description 'before the night shift'",
        "warmsite vm copy-type add erp quiet --before '/usr/local/bin/erp hold' --after '/usr/local/bin/erp release'",
        "warmsite vm policy erp --schedule 'nightly=at 0 2 * * * Europe/Berlin' --keep crash:8,nightly:7",
      ),
    )
    .action(
      runner.run(async (context, machine: string, name: string, o: AddOptions) => {
        const added =
          o.from === undefined
            ? copyTypeFromOptions(name, o)
            : await copyTypeFromFile(context.world.files, context.path(o.from), name);
        const before = own(await view(context, machine));
        if (!o.replace && before.some((type) => type.name === name)) {
          throw cliFailure('CLI_USAGE', `${machine} has a copy type ${name} already; --replace redefines it`);
        }
        return change(context, machine, [...before.filter((type) => type.name !== name), added]);
      }),
    );
  types
    .command('remove')
    .description(
      'remove a copy type that neither a schedule nor retention names; its points stay what they are',
    )
    .argument('<vm>', 'name or id')
    .argument('<type>', 'its name')
    .addHelpText('after', examples('warmsite vm copy-type remove erp nightly'))
    .action(
      runner.run(async (context, machine: string, name: string) => {
        const before = own(await view(context, machine));
        if (!before.some((type) => type.name === name)) {
          throw cliFailure('CLI_USAGE', `${machine} has no copy type ${name} of its own`);
        }
        return change(
          context,
          machine,
          before.filter((type) => type.name !== name),
        );
      }),
    );
}

type Protection = NonNullable<NonNullable<MachineView['protected']>['protection']>;

async function view(context: Context, machine: string): Promise<Protection> {
  const shown = await (await context.api()).call('vm.show', { params: { machine } });
  const protection = shown.protected?.protection;
  if (protection) return protection;
  throw cliFailure(
    'CLI_USAGE',
    `${machine} is not protected by this site: its copy types are part of its policy`,
  );
}

function own({ copyTypes }: Protection): CopyTypeShape[] {
  return copyTypes.flatMap(({ isBuiltIn, ...type }) => (isBuiltIn ? [] : type));
}

async function change(context: Context, machine: string, copyTypes: CopyTypeShape[]): Promise<Report> {
  const body = { copyTypes };
  const changed = await (await context.api()).call('vm.policy', { params: { machine }, body });
  return shown(changed.protected!.protection!);
}

function shown({ copyTypes }: Protection): Report {
  return { document: copyTypes, print: (page) => printCopyTypes(page, copyTypes) };
}
