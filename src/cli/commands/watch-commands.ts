import type { Command } from 'commander';
import { EXIT_FOUND_BAD } from '../context.ts';
import { named, parseCount } from '../values.ts';
import { printAlerts, printAudit, printDoctor } from '../views/site-view.ts';
import { examples, type Runner } from './runner.ts';

/** What a site has to say by itself: alerts, its audit log, the state of its host. */
export function addWatchCommands(program: Command, runner: Runner): void {
  program
    .command('alert')
    .description('what needs a person')
    .command('list')
    .description('list alerts that stand; the exit code is 1 if there is a critical one')
    .option('--all', 'also those that were cleared')
    .addHelpText('after', examples('warmsite alert list', 'warmsite alert list --all --json'))
    .action(
      runner.run(async (context, o: { all?: boolean }) => {
        const alerts = await (await context.api()).call('alert.list', { query: o.all ? { all: '1' } : {} });
        const isCritical = alerts.some(
          ({ severity, clearedAtMs }) => severity === 'critical' && clearedAtMs === undefined,
        );
        return {
          document: alerts,
          print: (page) => printAlerts(page, alerts, context.nowMs),
          ...(isCritical ? { exitCode: EXIT_FOUND_BAD } : {}),
        };
      }),
    );
  addAudit(program, runner);
  program
    .command('doctor')
    .description('look whether this host has what a site needs; the exit code is 1 if something fails')
    .addHelpText('after', examples('warmsite doctor'))
    .action(
      runner.run(async (context) => {
        const report = await (await context.api()).call('doctor', {});
        return {
          document: report,
          print: (page) => printDoctor(page, report),
          ...(report.verdict === 'failed' ? { exitCode: EXIT_FOUND_BAD } : {}),
        };
      }),
    );
}

function addAudit(program: Command, runner: Runner): void {
  const limit = named('--limit', (text) => parseCount(text, 1, 1_000_000));
  const before = named('--before', (text) => parseCount(text, 1, 999_999_999));
  program
    .command('audit')
    .description('who did what')
    .command('list')
    .description('list the audit log, newest first; the exit code is 1 if its chain of hashes is broken')
    .option('--limit <number>', 'how many entries', limit, 50)
    .option('--before <number>', 'only entries with a lower number', before)
    .addHelpText('after', examples('warmsite audit list', 'warmsite audit list --limit 500 --json'))
    .action(
      runner.run(async (context, o: { limit: number; before?: number }) => {
        const query = {
          limit: String(o.limit),
          ...(o.before === undefined ? {} : { before: String(o.before) }),
        };
        const audit = await (await context.api()).call('audit.list', { query });
        return {
          document: audit,
          print: (page) => printAudit(page, audit),
          ...(audit.chain.state === 'broken' ? { exitCode: EXIT_FOUND_BAD } : {}),
        };
      }),
    );
}
