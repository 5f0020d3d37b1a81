import type { Command } from 'commander';
import type { PrepareRequest } from '../../api/index.ts';
import { parseProgram } from '../copy-type-description.ts';
import { listed, named, parseDuration } from '../values.ts';
import { reportFailover } from '../watch.ts';
import { askedOf, NAME_OPTION, PROBE_OPTION, type ProbeOption } from './failover-options.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

const LIMIT_MS = 60_000;

interface PrepareOptions extends WaitOption, ProbeOption {
  readonly point: string;
  readonly run: readonly (readonly string[])[];
  readonly limit?: number;
  readonly name?: string;
}

/** The programs that a guest is to run, as the site takes them. */
export function programsOf(
  commands: readonly (readonly string[])[],
  limitMs = LIMIT_MS,
): PrepareRequest['programs'] {
  return commands.map(([command, ...rest], index) => ({
    ...{ name: `run-${index + 1}`, command: command!, arguments: rest, limitMs },
  }));
}

/** What a guest has to do to itself after a failover is done ahead, once. */
export function addPrepare(failover: Command, runner: Runner): void {
  failover
    .command('prepare')
    .description('let the guest of a point do ahead what it would have to do after a failover')
    .argument('<vm>', 'name or id')
    .requiredOption('--point <point>', 'number, id, latest or latest-application')
    .requiredOption(
      '--run <program>',
      'of the guest, with its arguments; must end with exit code 0; repeatable',
      listed('--run', parseProgram),
    )
    .option('--limit <time>', 'for each program; 1m if absent', named('--limit', parseDuration))
    .option(...NAME_OPTION)
    .option(...PROBE_OPTION)
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples("warmsite failover prepare web --point 17 --run '/usr/local/sbin/revert-to-snapshot'")}
The point is booted in isolation, the programs run in it, and it shuts down. What it wrote is kept, and from then on tests and
failovers of the point start from there. The point itself does not change.`,
    )
    .action(
      runner.run(async (context, machine: string, o: PrepareOptions) => {
        const body: PrepareRequest = {
          ...{ point: o.point, programs: programsOf(o.run, o.limit) },
          ...askedOf(o),
        };
        const job = await (await context.api()).call('failover.prepare', { params: { machine }, body });
        return reportFailover(context, job, o.wait);
      }),
    );
}
