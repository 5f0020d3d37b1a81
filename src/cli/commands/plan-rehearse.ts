import type { Command } from 'commander';
import type { RehearsalView, RehearseRequest } from '../../api/index.ts';
import { EXIT_FOUND_BAD } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { invalid, named, parseDuration } from '../values.ts';
import { printRehearsals } from '../views/rehearsal-view.ts';
import { examples, type Runner } from './runner.ts';

type Times = RehearseRequest['times'];

interface RehearseOptions {
  readonly daily?: { readonly hour: number; readonly minute: number };
  readonly at?: string;
  readonly every?: number;
  readonly zone?: string;
  readonly within?: number;
  readonly off?: boolean;
}

export function addRehearse(plan: Command, runner: Runner): void {
  plan
    .command('rehearse')
    .description('have this site rehearse a plan by itself; without options: show what it rehearses')
    .argument('[plan]', 'its name; without options: all if absent')
    .option('--daily <time>', 'every day at this time, such as 02:00', named('--daily', parseTimeOfDay))
    .option('--at <cron>', 'at these times: minute, hour, day of the month, month, weekday')
    .option('--every <time>', 'so often, from now on', named('--every', parseDuration))
    .option('--zone <zone>', 'of --daily and --at, such as Europe/Berlin; that of this host if absent')
    .option(
      '--within <time>',
      'with one of these: tell when none has passed so long after its time; 6h if absent',
      named('--within', parseDuration),
    )
    .option('--off', 'never more')
    .addHelpText(
      'after',
      `${examples(
        'warmsite plan rehearse',
        'warmsite plan rehearse shop --daily 02:00 --zone Europe/Berlin',
        "warmsite plan rehearse shop --at '0 2 * * Sun' --within 24h",
        'warmsite plan rehearse shop --off',
      )}
It is a plan run --test that the site begins by itself: what was missed is made up once, nobody is asked for approvals, and none begins
while a failover or another run is under way, or machines of the plan run here in earnest. One that does not pass, and one that is
missing, raise an alert; without options that makes the exit code 1.`,
    )
    .action(
      runner.run(async (context, name: string | undefined, options: RehearseOptions) => {
        const api = await context.api();
        const request = requestOf(options);
        if (request !== undefined && name === undefined)
          throw cliFailure('CLI_USAGE', 'say which plan is meant');
        const params = { plan: name ?? '' };
        const all = await (request === undefined
          ? api.call('plan.rehearsals', {})
          : request === 'off'
            ? api.call('plan.rehearseNoMore', { params })
            : api.call('plan.rehearse', { params, body: request }));
        const shown = name === undefined ? all : all.filter(({ plan: of }) => of === name);
        const isBad = request === undefined && shown.some(isWrong);
        return {
          document: shown,
          print: (page) => printRehearsals(page, shown, context.nowMs),
          ...(isBad ? { exitCode: EXIT_FOUND_BAD } : {}),
        };
      }),
    );
}

function isWrong({ isFailing, isOverdue }: RehearsalView): boolean {
  return isFailing || isOverdue;
}

/** Undefined: nothing is to be changed. */
function requestOf(options: RehearseOptions): RehearseRequest | 'off' | undefined {
  const { off, zone, within } = options;
  const [times, second] = timesOf(options);
  if (second || (off && (times || zone !== undefined || within !== undefined))) {
    throw cliFailure('CLI_USAGE', 'give one of --daily, --at, --every, --off');
  }
  if (off) return 'off';
  if (times) return { times, ...(within === undefined ? {} : { withinMs: within }) };
  if (zone === undefined && within === undefined) return undefined;
  throw cliFailure('CLI_USAGE', '--zone and --within belong to one of --daily, --at, --every');
}

function timesOf({ daily, at, every, zone }: RehearseOptions): Times[] {
  const here = zone ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
  const fixed = (cron: string): Times => ({ kind: 'fixed', cron, zone: here });
  return [
    ...(daily ? [fixed(`${daily.minute} ${daily.hour} * * *`)] : []),
    ...(at === undefined ? [] : [fixed(at)]),
    ...(every === undefined ? [] : [{ kind: 'interval', everyMs: every } as const]),
  ];
}

function parseTimeOfDay(text: string): { readonly hour: number; readonly minute: number } {
  const match = /^([01]?\d|2[0-3]):([0-5]\d)$/.exec(text);
  if (!match) throw invalid(text, 'a time of day such as 02:00');
  return { hour: Number(match[1]), minute: Number(match[2]) };
}
