import type { Command } from 'commander';
import type { MachineView } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { newTargetOf, type TargetOptions, targetChangeOf, withTargetOptions } from '../policy-options.ts';
import { printMachine } from '../views/machine-view.ts';
import { examples, type Runner } from './runner.ts';

export function addTargetCommands(vm: Command, runner: Runner): void {
  const target = vm.command('target').description('the sites that a protected machine is replicated to');
  withTargetOptions(
    target
      .command('add')
      .description('replicate a machine to one more site; what is not named is as at the first one'),
  )
    .argument('<vm>', 'name or id')
    .argument('<site>', 'a paired site, by name or id')
    .option('--seed', 'the base goes by courier: nothing is sent before `warmsite seed export`')
    .addHelpText(
      'after',
      examples(
        'warmsite vm target add web east',
        "warmsite vm target add web east --send-every 6h --rate 2M/s --keep-calendar 'daily:14,monthly:12 Europe/Berlin'",
      ),
    )
    .action(
      runner.run(async (context, machine: string, site: string, o: TargetOptions & { seed?: boolean }) => {
        const body = {
          ...newTargetOf(targetChangeOf(o, undefined)),
          ...(o.seed ? { seed: true } : {}),
          target: site,
        };
        return shown(context, await (await context.api()).call('target.add', { params: { machine }, body }));
      }),
    );
  withTargetOptions(
    target.command('change').description('change what one site gets of a machine; what is not named stays'),
  )
    .argument('<vm>', 'name or id')
    .argument('<site>', 'name or id')
    .addHelpText(
      'after',
      examples(
        'warmsite vm target change web east --keep crash:4',
        'warmsite vm target change web east --send-every copy --rate unlimited',
      ),
    )
    .action(runner.run(change));
  target
    .command('remove')
    .description('end the replication to one of several sites; the points there stay')
    .argument('<vm>', 'name or id')
    .argument('<site>', 'name or id')
    .addHelpText('after', examples('warmsite vm target remove web east'))
    .action(
      runner.run(async (context, machine: string, site: string) => {
        const api = await context.api();
        return shown(context, await api.call('target.remove', { params: { machine, target: site } }));
      }),
    );
}

async function change(context: Context, machine: string, site: string, o: TargetOptions): Promise<Report> {
  const api = await context.api();
  const { protected: atHome } = await api.call('vm.show', { params: { machine } });
  const before = atHome?.protection?.targets.find(({ siteId, name }) => siteId === site || name === site);
  const body = targetChangeOf(o, before?.retention);
  if (Object.keys(body).length === 0) throw cliFailure('CLI_USAGE', 'name at least one option to change');
  return shown(context, await api.call('target.change', { params: { machine, target: site }, body }));
}

function shown(context: Context, machine: MachineView): Report {
  return { document: machine, print: (page) => printMachine(page, machine, context.nowMs) };
}
