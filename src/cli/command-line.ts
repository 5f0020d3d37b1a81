import { Command, CommanderError } from 'commander';
import { Failure, isFailure, KIND_TABLE, messageOf } from '../lib/errors.ts';
import { WARMSITE_VERSION } from '../lib/records.ts';
import { addDrillCommands } from './commands/drill-commands.ts';
import { addFailoverCommands } from './commands/failover-commands.ts';
import { addGenerationCommands } from './commands/generation-commands.ts';
import { addGroupCommands } from './commands/group-commands.ts';
import { addJobCommands } from './commands/job-commands.ts';
import { addMachineCommands } from './commands/machine-commands.ts';
import { addOriginCommands } from './commands/origin-commands.ts';
import { addPlanCommands } from './commands/plan-commands.ts';
import { addPointCommands } from './commands/point-commands.ts';
import { addProofCommands } from './commands/proof-commands.ts';
import { addReplicaCommands } from './commands/replica-commands.ts';
import { addReportCommands } from './commands/report-commands.ts';
import { examples, Runner } from './commands/runner.ts';
import { addSeedCommands } from './commands/seed-commands.ts';
import { addSiteCommands } from './commands/site-commands.ts';
import { addWatchCommands } from './commands/watch-commands.ts';
import { DATA_DIRECTORY_DEFAULT, type Report } from './context.ts';
import { cliFailure } from './errors.ts';
import { Page } from './page.ts';
import type { Screen, World } from './world.ts';

/**
 * Runs one command line (without the program's name) and returns its exit code: 0, 1 when an act was done and found
 * something bad, or the code of the failure's kind. With `--json` standard output gets exactly one JSON document, for a
 * failure `{ error }`; otherwise results go to `output` as text, errors and progress to `messages`.
 */
export async function runCommandLine(args: readonly string[], world: World): Promise<number> {
  const json = args.includes('--json');
  let exitCode = 0;
  const program = buildProgram(world, json, (report) => {
    exitCode = report.exitCode ?? 0;
    printReport(world, json, report);
  });
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    const failure = failureOf(error);
    printFailure(world, json, failure);
    return KIND_TABLE[failure.kind].exitCode;
  }
}

/** Every command with its options and its help; nothing is done before it parses. */
export function buildProgram(world: World, json: boolean, finish: (report: Report) => void): Command {
  const program = new Command('warmsite')
    .description('Disaster recovery for QEMU/KVM virtual machines.')
    .version(json ? JSON.stringify({ version: WARMSITE_VERSION }, null, 2) : WARMSITE_VERSION)
    .option(
      '--data <directory>',
      `data directory of the site (default: $WARMSITE_DATA or ${DATA_DIRECTORY_DEFAULT})`,
    )
    .option('--json', 'one JSON document on standard output, for errors too')
    .addHelpText(
      'after',
      examples('warmsite site init --name north', 'warmsite vm add --help', 'warmsite vm list --json'),
    );
  const runner = new Runner({ world, program, finish: (_context, report) => finish(report) });
  addSiteCommands(program, runner);
  addMachineCommands(program, runner);
  addPointCommands(program, runner);
  addGroupCommands(program, runner);
  addReplicaCommands(program, runner);
  addGenerationCommands(program, runner);
  addOriginCommands(program, runner);
  addSeedCommands(program, runner);
  addFailoverCommands(program, runner);
  addPlanCommands(program, runner);
  addReportCommands(program, runner);
  addProofCommands(program, runner);
  addDrillCommands(program, runner);
  addJobCommands(program, runner);
  addWatchCommands(program, runner);
  for (const command of withSubcommands(program)) {
    command
      .exitOverride()
      .configureHelp({ showGlobalOptions: true })
      .configureOutput({
        writeOut: (text) => world.output.write(text),
        // What commander says of wrong usage comes as an error and is printed like every other failure.
        writeErr: () => undefined,
      });
  }
  return program;
}

function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}

function printReport(world: World, json: boolean, report: Report): void {
  if (json) {
    if (report.document !== undefined) world.output.write(`${JSON.stringify(report.document, null, 2)}\n`);
    return;
  }
  const page = new Page(wantsColours(world, world.output));
  report.print(page);
  world.output.write(page.toString());
}

function failureOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof CommanderError) {
    // `warmsite vm` alone: commander would print its help as an error.
    if (error.code === 'commander.help') return cliFailure('CLI_USAGE', 'a command is missing');
    return cliFailure('CLI_USAGE', error.message.replace(/^error: /, '').replaceAll('\n', ' '));
  }
  return cliFailure('CLI_BUG', messageOf(error), { cause: error });
}

function printFailure(world: World, json: boolean, failure: Failure): void {
  if (isFailure(failure, 'CLI_BUG') && failure.cause instanceof Error) {
    world.messages.write(`${failure.cause.stack}\n`);
  }
  if (json) {
    world.output.write(`${JSON.stringify({ error: failure }, null, 2)}\n`);
    return;
  }
  const page = new Page(wantsColours(world, world.messages));
  page
    .line({ text: failure.message, tone: 'bad' })
    .line({ text: `${failure.code}: `, tone: 'faint' }, failure.hint);
  world.messages.write(page.toString());
}

/** https://no-color.org: any value but an empty one means no colours. */
function wantsColours({ environment }: World, screen: Screen): boolean {
  return screen.isTTY === true && !environment.NO_COLOR && environment.TERM !== 'dumb';
}
