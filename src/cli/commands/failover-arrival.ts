import type { Command } from 'commander';
import type { ArrivalRule, ArrivalRuleView, ProbeRequest } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { parseProgram } from '../copy-type-description.ts';
import { cliFailure } from '../errors.ts';
import { formatDuration } from '../format.ts';
import type { Page } from '../page.ts';
import { listed, named, parseDuration, parseName } from '../values.ts';
import { PROBE_OPTION, type ProbeOption } from './failover-options.ts';
import { programsOf } from './failover-prepare.ts';
import { examples, type Runner } from './runner.ts';

interface ArrivalOptions extends ProbeOption {
  readonly copyType?: string[];
  readonly run?: readonly (readonly string[])[];
  readonly limit?: number;
  readonly grace?: number;
  readonly off?: boolean;
}

/** How this site prepares each point that arrives. */
export function addOnArrival(failover: Command, runner: Runner): void {
  failover
    .command('on-arrival')
    .description('prepare each point that arrives here; without options: show what is done')
    .argument('<vm>', 'name or id')
    .option(
      '--run <program>',
      'prepare it: run a program of the guest, with its arguments; repeatable',
      listed('--run', parseProgram),
    )
    .option('--copy-type <type>', 'points of this type alone; repeatable', listed('--copy-type', parseName))
    .option('--limit <time>', 'for each program; 1m if absent', named('--limit', parseDuration))
    .option('--grace <time>', 'for its guest to shut down; 1m if absent', named('--grace', parseDuration))
    .option(...PROBE_OPTION)
    .option('--off', 'do nothing with them any more')
    .addHelpText(
      'after',
      `${examples(
        "warmsite failover on-arrival web --run '/usr/local/sbin/revert-to-snapshot'",
        'warmsite failover on-arrival web --off',
      )}
One point at a time is worked on, the newest of each machine; older ones that wait are passed over. What fails raises an alert.
To have points booted and proven, see warmsite drill policy.`,
    )
    .action(runner.run(onArrival));
}

async function onArrival(context: Context, machine: string, o: ArrivalOptions): Promise<Report> {
  const asked = [o.off, o.run].filter((one) => one !== undefined).length;
  if (asked > 1) throw cliFailure('CLI_USAGE', 'give either --run or --off');
  const details = [o.copyType, o.limit, o.grace, o.probe].some((one) => one !== undefined);
  if (details && !o.run) throw cliFailure('CLI_USAGE', 'say what is to be run: --run');
  const api = await context.api();
  const params = { machine };
  let view: ArrivalRuleView;
  if (o.off) view = await api.call('arrival.clear', { params });
  else if (o.run) view = await api.call('arrival.set', { params, body: ruleOf(o, o.run) });
  else view = await api.call('arrival.show', { params });
  return { document: view, print: (page) => printRule(page, machine, view) };
}

function ruleOf(o: ArrivalOptions, run: NonNullable<ArrivalOptions['run']>): ArrivalRule {
  const probes: { probes?: ProbeRequest[] } = o.probe ? { probes: [...o.probe] } : {};
  const graceMs = o.grace === undefined ? {} : { graceMs: o.grace };
  return {
    ...(o.copyType ? { copyTypes: [...o.copyType] } : {}),
    work: { kind: 'prepare', programs: programsOf(run, o.limit), ...probes, ...graceMs },
  };
}

function printRule(page: Page, machine: string, { rule }: ArrivalRuleView): void {
  if (!rule) {
    page.line(`Points of ${machine} are not prepared when they arrive.`);
    return;
  }
  const { copyTypes, work } = rule;
  const which = copyTypes
    ? `Each point of ${machine} of type ${copyTypes.join(' or ')}`
    : `Each point of ${machine}`;
  page.line(`${which} is prepared when it arrives:`);
  for (const { command, arguments: args = [], limitMs } of work.programs) {
    page.line(`  ${[command, ...args].join(' ')} (at most ${formatDuration(limitMs)})`);
  }
}
