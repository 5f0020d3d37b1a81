import type { Command } from 'commander';
import { cliFailure } from '../errors.ts';
import { type DiskOption, parseDisk } from '../machine-description.ts';
import { listed } from '../values.ts';
import { examples, type Runner } from './runner.ts';
import { shown } from './shown.ts';

interface MoveOptions {
  readonly qmp?: string;
  readonly agent?: string;
  readonly disk?: readonly DiskOption[];
}

/** What makes a machine known, changed without its becoming another one: its name, and where it is found. */
export function addIdentityCommands(vm: Command, runner: Runner): void {
  vm.command('rename')
    .description('call a machine something else; its points so far keep the old name')
    .argument('<vm>', 'name or id')
    .argument('<name>', 'what it is called from now on')
    .addHelpText('after', examples('warmsite vm rename web web-old'))
    .action(
      runner.run(async (context, machine: string, name: string) => {
        const api = await context.api();
        return shown(context, await api.call('vm.rename', { params: { machine }, body: { name } }));
      }),
    );
  vm.command('move')
    .description('tell that a machine, with the same disks, is found elsewhere; nothing is sent anew')
    .argument('<vm>', 'name or id')
    .option('--qmp <socket>', 'its QMP socket now; of a machine that this site does not start')
    .option('--agent <socket>', 'the socket of its guest agent now, or none')
    .option(
      '--disk <ID=PATH[:format]>',
      "its owner's file of a disk now; repeatable",
      listed('--disk', parseDisk),
    )
    .addHelpText(
      'after',
      examples(
        'warmsite vm move db --qmp /run/vm2/db.qmp --agent /run/vm2/db.qga',
        'warmsite vm move web --disk root=/srv/fast/web.qcow2',
      ),
    )
    .action(
      runner.run(async (context, machine: string, { qmp, agent, disk }: MoveOptions) => {
        const body = {
          ...(qmp === undefined ? {} : { qmpPath: context.path(qmp) }),
          ...(agent === undefined ? {} : { agentPath: agent === 'none' ? null : context.path(agent) }),
          ...(disk ? { disks: disk.map((one) => ({ ...one, path: context.path(one.path) })) } : {}),
        };
        if (Object.keys(body).length === 0) throw cliFailure('CLI_USAGE', 'nothing says where it is now');
        const api = await context.api();
        return shown(context, await api.call('vm.move', { params: { machine }, body }));
      }),
    );
}
