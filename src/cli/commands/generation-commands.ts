import type { Command } from 'commander';
import type { GenerationView } from '../../api/index.ts';
import { formatBytes, formatTime } from '../format.ts';
import type { Page } from '../page.ts';
import { examples, type Runner } from './runner.ts';

/** What a site had of a machine before the last turns of its replication. */
export function addGenerationCommands(program: Command, runner: Runner): void {
  const generation = program
    .command('generation')
    .description('what this site had of a machine before its replication turned')
    .addHelpText('after', examples('warmsite generation list web'));
  generation
    .command('list')
    .description('list the older generations of a machine, and what still lies upon them')
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite generation list web'))
    .action(
      runner.run(async (context, machine: string) => {
        const former = await (await context.api()).call('generation.list', { params: { machine } });
        return { document: former, print: (page) => printGenerations(page, machine, former) };
      }),
    );
  generation
    .command('remove')
    .description(
      'remove an older generation of a machine, with all that was written in it or set aside there',
    )
    .argument('<vm>', 'name or id')
    .argument('<epoch>', 'its epoch, or its name, as `warmsite generation list` shows them')
    .option('--discard-writes', 'your word that what was written in it is not needed: it is gone for good')
    .addHelpText(
      'after',
      `${examples('warmsite generation remove web 2', 'warmsite generation remove web replica.3 --discard-writes')}
Refused while anything lies upon its files that counts: the machine as it is now, its replica, a branch, an older copy that is offered,
another older generation. The headers of the images are read for that.`,
    )
    .action(
      runner.run(async (context, machine: string, epoch: string, o: { discardWrites?: true }) => {
        if (!o.discardWrites) {
          await context.confirm({
            question: `What was written in generation ${epoch} of ${machine} at this site, or set aside there, would be gone for good.`,
            word: machine,
            option: '--discard-writes',
          });
        }
        const params = { machine, generation: epoch };
        const done = await (await context.api()).call('generation.remove', { params });
        return { document: done, print: (page) => page.line(`Generation ${epoch} of ${machine} is gone.`) };
      }),
    );
}

function printGenerations(page: Page, machine: string, former: readonly GenerationView[]): void {
  if (former.length === 0) {
    page.line(`None: what this site has of ${machine} is all in use.`);
    return;
  }
  page.table(
    [
      { head: 'GENERATION' },
      { head: 'SIZE', align: 'right' },
      { head: 'NEWEST STATE' },
      { head: 'BRANCHES', align: 'right' },
      { head: 'NEEDED BY' },
      { head: 'DIRECTORY' },
    ],
    former.map(({ generation, sizeBytes, newestAtMs, branches, needs, unclear, directory }) => [
      generation,
      formatBytes(sizeBytes),
      newestAtMs === undefined ? '' : formatTime(newestAtMs),
      branches.length === 0 ? '' : String(branches.length),
      unclear === undefined
        ? [...new Set(needs.map(({ by }) => by))].join(', ')
        : { text: `not known: ${unclear}`, tone: 'warning' },
      directory,
    ]),
  );
}
