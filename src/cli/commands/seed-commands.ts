import type { Command } from 'commander';
import type { JobView } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { formatBytes } from '../format.ts';
import { reportJob } from '../watch.ts';
import { addOlderCopyCommands } from './older-copy-commands.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

export function addSeedCommands(program: Command, runner: Runner): void {
  const seed = program
    .command('seed')
    .description('the first, large copy of a machine by courier, or from what is there already');
  addOlderCopyCommands(seed, runner);
  seed
    .command('export')
    .description('write the base of a protected machine to a medium, at the site where it is at home')
    .argument('<vm>', 'name or id')
    .argument('<path>', 'a directory of the medium, or a file that is not there yet')
    .option('--to <site>', 'the site that it is for; the first target if absent')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples('warmsite vm protect web --seed', 'warmsite seed export web /media/courier')}
From then on copies flow over the wire, and become usable when the seed has been imported. If it is lost, export another one.`,
    )
    .action(runner.run(exportSeed));
  seed
    .command('import')
    .description('take in the base that a courier has brought, at the recovery site')
    .argument('<path>', 'the file, or a directory that holds one seed')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples('warmsite seed import /media/courier')}
It may be repeated, and goes on where it was interrupted. A wrong or damaged seed changes nothing.`,
    )
    .action(runner.run(importSeed));
}

async function exportSeed(
  context: Context,
  machine: string,
  path: string,
  o: WaitOption & { to?: string },
): Promise<Report> {
  const api = await context.api();
  const body = { path: context.path(path), ...(o.to === undefined ? {} : { target: o.to }) };
  const job = await api.call('seed.export', { params: { machine }, body });
  return reportJob(context, job, o.wait, (ended) => ({
    document: ended,
    print: (page) => {
      const { path: file, bytes } = resultOf(ended);
      page.line({ text: 'Exported: ', tone: 'good' }, `${file} (${formatBytes(Number(bytes))}).`);
      page.line('Bring it to the recovery site, and there: ', {
        text: 'warmsite seed import <path>',
        tone: 'faint',
      });
    },
  }));
}

async function importSeed(context: Context, path: string, o: WaitOption): Promise<Report> {
  const api = await context.api();
  const job = await api.call('seed.import', { body: { path: context.path(path) } });
  return reportJob(context, job, o.wait, (ended) => ({
    document: ended,
    print: (page) => {
      const { kind, sequence } = resultOf(ended);
      page.line(
        kind === 'already'
          ? 'It has been imported before; nothing was to be done.'
          : { text: `Imported as point ${sequence}; every point upon it can be used now.`, tone: 'good' },
      );
    },
  }));
}

function resultOf({ result }: JobView): Readonly<Record<string, unknown>> {
  return (result ?? {}) as Readonly<Record<string, unknown>>;
}
