import type { Command } from 'commander';
import type { Context, Report } from '../context.ts';
import { printMachines } from '../views/machine-view.ts';
import { examples, type Runner } from './runner.ts';

export function addReplicaCommands(program: Command, runner: Runner): void {
  const replica = program.command('replica').description('what other sites replicate to this one');
  replica
    .command('list')
    .description('list the replicas that this site holds')
    .addHelpText('after', examples('warmsite replica list'))
    .action(
      runner.run(async (context) => {
        const machines = await (await context.api()).call('vm.list', {});
        const held = machines.filter((machine) => machine.replica !== undefined);
        return { document: held, print: (page) => printMachines(page, held, context.nowMs) };
      }),
    );
  replica
    .command('remove')
    .description('remove a replica with all its points; protecting the machine again sends everything anew')
    .argument('<vm>', 'name or id; the id if it is broken')
    .option('--discard-points', 'your word that its points are not needed: they are gone for good')
    .addHelpText(
      'after',
      `${examples('warmsite replica remove web', 'warmsite replica remove web --discard-points')}
Refused while a branch, a test, a verification, a held point or a copy that comes in needs it.`,
    )
    .action(runner.run(remove));
}

async function remove(context: Context, machine: string, o: { discardPoints?: boolean }): Promise<Report> {
  const api = await context.api();
  if (!o.discardPoints) {
    await context.confirm({
      question: `All points of ${machine} at this site would be gone for good.`,
      word: machine,
      option: '--discard-points',
    });
  }
  const done = await api.call('replica.remove', { params: { machine } });
  return {
    document: done,
    print: (page) => page.line(`The replica of ${machine} is gone, with all its points.`),
  };
}
