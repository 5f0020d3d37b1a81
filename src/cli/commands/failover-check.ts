import type { Command } from 'commander';
import type { StartCheckView } from '../../api/index.ts';
import { EXIT_FOUND_BAD } from '../context.ts';
import type { Page } from '../page.ts';
import { examples, type Runner } from './runner.ts';

/** Whether a failover could succeed, asked before it is needed. */
export function addCheck(failover: Command, runner: Runner): void {
  failover
    .command('check')
    .description('look whether the machine of a point would start here; the exit code is 1 if it would not')
    .argument('<vm>', 'name or id')
    .option('--point <point>', 'number, id, latest or latest-application', 'latest')
    .addHelpText('after', examples('warmsite failover check web', 'warmsite failover check web --point 17'))
    .action(
      runner.run(async (context, machine: string, { point }: { point: string }) => {
        const params = { machine, point };
        const view = await (await context.api()).call('failover.check', { params });
        return {
          document: view,
          print: (page) => printCheck(page, machine, view),
          ...(view.wouldStart ? {} : { exitCode: EXIT_FOUND_BAD }),
        };
      }),
    );
}

function printCheck(page: Page, machine: string, { sequence, wouldStart, findings }: StartCheckView): void {
  const subject = `Point ${sequence} of ${machine}`;
  if (findings.length === 0) {
    page.line({ text: `${subject} would start here.`, tone: 'good' });
    return;
  }
  page.line(
    wouldStart
      ? { text: `${subject} would start here, and not be the same:`, tone: 'warning' }
      : { text: `${subject} would not start here, because`, tone: 'bad' },
  );
  for (const { prevents, code, found, remedy } of findings) {
    page.line({ text: `  ${found}`, tone: prevents ? 'bad' : 'warning' });
    page.line(`  ${code}: ${remedy}`);
  }
}
