import type { Command } from 'commander';
import type { FencingProgram } from '../../api/index.ts';
import { cliFailure } from '../errors.ts';
import { formatDuration } from '../format.ts';
import { listed, named, parseDuration } from '../values.ts';
import { examples, type Runner } from './runner.ts';

interface FencingOptions {
  readonly program?: string;
  readonly argument?: readonly string[];
  readonly limit?: number;
  readonly off?: boolean;
}

/** Of what a failover takes in the place of a person's word. */
export const FENCE_OPTION = [
  '--fence',
  'in its place: run the fencing program, which makes sure of it (`warmsite failover fencing`)',
] as const;

/** What makes sure that the other side is down: shown, and changed where an option says so. */
export function addFencing(failover: Command, runner: Runner): void {
  failover
    .command('fencing')
    .description('show or change the program of this site that makes sure that the other side is down')
    .option('--program <name>', 'a file in the directory `programs` of the data directory')
    .option('--argument <text>', 'what it is given; repeatable', listed('--argument', String))
    .option(
      '--limit <time>',
      'it is killed then, and has fenced nothing; 2m if absent',
      named('--limit', parseDuration),
    )
    .option('--off', 'have none')
    .addHelpText(
      'after',
      `${examples('warmsite failover fencing', 'warmsite failover fencing --program power-off --argument ipmi --limit 3m')}
It is run by \`failover start --fence\`, before anything is taken, and may be run again: switching off what is off must do no harm.
Exit code 0 says that the machine does not run at the other side any more, and cannot by itself.`,
    )
    .action(
      runner.run(async (context, o: FencingOptions) => {
        const api = await context.api();
        const fencing = changeOf(o);
        const rule =
          fencing === undefined
            ? await api.call('fencing.show', {})
            : await api.call('fencing.change', { body: { fencing } });
        const { program, arguments: args = [], limitMs } = rule.fencing ?? {};
        return {
          document: rule,
          print: (page) =>
            page.fields([
              ['program', [program ?? 'none', ...args].join(' ')],
              ...(limitMs === undefined ? [] : [['limit', formatDuration(limitMs)] as const]),
              ...(rule.lack === undefined ? [] : [['not run', rule.lack] as const]),
            ]),
        };
      }),
    );
}

/** Undefined: nothing is changed. */
function changeOf({ program, argument, limit, off }: FencingOptions): FencingProgram | null | undefined {
  const isDetailed = argument !== undefined || limit !== undefined;
  if (off && (program !== undefined || isDetailed))
    throw cliFailure('CLI_USAGE', 'give either --off or a program');
  if (off) return null;
  if (program === undefined && isDetailed) throw cliFailure('CLI_USAGE', 'name the program: --program NAME');
  if (program === undefined) return undefined;
  return {
    program,
    ...(argument ? { arguments: [...argument] } : {}),
    ...(limit === undefined ? {} : { limitMs: limit }),
  };
}

/** Whether something was said in the place of a question to the person. Throws CLI_USAGE where that is more than one thing. */
export function hasGround(o: {
  readonly confirmOtherSideDown?: boolean;
  readonly askWitness?: boolean;
  readonly fence?: boolean;
}): boolean {
  if (o.fence && (o.confirmOtherSideDown || o.askWitness))
    throw cliFailure('CLI_USAGE', 'give one of --confirm-other-side-down, --ask-witness and --fence');
  return Boolean(o.confirmOtherSideDown || o.askWitness || o.fence);
}

/** What is asked for upon it. */
export function groundOf(o: { readonly askWitness?: boolean; readonly fence?: boolean }) {
  if (o.fence) return { fence: true } as const;
  return o.askWitness ? ({ askWitness: true } as const) : ({ confirmOtherSideDown: true } as const);
}
