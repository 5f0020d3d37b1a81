import type { Command } from 'commander';
import { formatBytes, formatDuration } from '../format.ts';
import { named, parseCount, parseInterval, parseSize } from '../values.ts';
import { examples, type Runner } from './runner.ts';

interface RulesOptions {
  readonly mostTests?: number;
  readonly freeFloor?: number;
  readonly lifetime?: number | 'off';
}

/** What all tests of a site may take together: shown, and changed where an option says so. */
export function addRules(failover: Command, runner: Runner): void {
  failover
    .command('rules')
    .description('show or change what all tests of this site may take together')
    .option(
      '--most-tests <count>',
      'so many run at once',
      named('--most-tests', (text) => parseCount(text, 0, 10_000)),
    )
    .option(
      '--free-floor <size>',
      'with less free space no test starts, and those that run stand still',
      named('--free-floor', parseSize),
    )
    .option('--lifetime <time>', 'clean tests up after this time; or off', named('--lifetime', parseInterval))
    .addHelpText(
      'after',
      `${examples('warmsite failover rules', 'warmsite failover rules --most-tests 3 --free-floor 20G --lifetime 8h')}
Failovers are not concerned: they start, and go on, whatever these rules say.`,
    )
    .action(
      runner.run(async (context, { mostTests, freeFloor, lifetime }: RulesOptions) => {
        const body = {
          ...(mostTests === undefined ? {} : { mostRunning: mostTests }),
          ...(freeFloor === undefined ? {} : { freeFloorBytes: freeFloor }),
          ...(lifetime === undefined ? {} : { lifetimeMs: lifetime === 'off' ? null : lifetime }),
        };
        const api = await context.api();
        const rules =
          Object.keys(body).length === 0
            ? await api.call('failover.rules', {})
            : await api.call('failover.changeRules', { body });
        return {
          document: rules,
          print: (page) =>
            page.fields([
              ['tests at once', String(rules.mostRunning)],
              ['free space left', formatBytes(rules.freeFloorBytes)],
              [
                'cleaned up after',
                rules.lifetimeMs === undefined ? 'never' : formatDuration(rules.lifetimeMs),
              ],
            ]),
        };
      }),
    );
}
