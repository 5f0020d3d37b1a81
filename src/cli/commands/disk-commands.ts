import type { Command } from 'commander';
import type { AddDiskRequest } from '../../api/index.ts';
import { parseDisk, parseDiskId } from '../machine-description.ts';
import { named, parseWord } from '../values.ts';
import { examples, type Runner } from './runner.ts';
import { shown } from './shown.ts';

const BUSES = ['virtio-blk', 'virtio-scsi', 'ide', 'sata'] as const;

interface AddOptions {
  readonly disk?: Pick<AddDiskRequest, 'diskId' | 'file'>;
  readonly device?: string;
  readonly bus?: (typeof BUSES)[number];
}

export function addDiskCommands(vm: Command, runner: Runner): void {
  const disk = vm.command('disk').description('disks that a machine gets or loses while it is protected');
  addRemove(disk, runner);
  disk
    .command('add')
    .description('take a disk in: the next copy brings it whole, and only what changed of the others')
    .argument('<vm>', 'name or id')
    .option(
      '--disk <ID[=PATH[:format]]>',
      'its id from now on; the file is needed for a machine that is off',
      named('--disk', parseNewDisk),
    )
    .option(
      '--device <name>',
      'of a running machine: the device, as the alert names it; else the only new one',
    )
    .option(
      '--bus <bus>',
      'of a machine that is off: virtio-blk, virtio-scsi, ide or sata; as its first disk if absent',
      named('--bus', (text) => parseWord(text, BUSES)),
    )
    .addHelpText(
      'after',
      examples(
        'warmsite vm disk add db',
        'warmsite vm disk add db --disk logs --device /machine/peripheral/logs/virtio-backend',
        'warmsite vm disk add web --disk data=/srv/images/web-data.qcow2',
      ),
    )
    .action(
      runner.run(async (context, machine: string, o: AddOptions) => {
        const { diskId, file } = o.disk ?? {};
        const body = {
          ...(diskId === undefined ? {} : { diskId }),
          ...(file ? { file: { ...file, path: context.path(file.path) } } : {}),
          ...(o.device === undefined ? {} : { device: o.device }),
          ...(o.bus === undefined ? {} : { bus: o.bus }),
        };
        const api = await context.api();
        return shown(context, await api.call('vm.disk.add', { params: { machine }, body }));
      }),
    );
}

function addRemove(disk: Command, runner: Runner): void {
  disk
    .command('remove')
    .description(
      'take a disk out: no further copy has it, older points keep it, its file is given back whole',
    )
    .argument('<vm>', 'name or id')
    .requiredOption('--disk <id>', 'its id', named('--disk', parseDiskId))
    .addHelpText('after', examples('warmsite vm disk remove db --disk logs'))
    .action(
      runner.run(async (context, machine: string, o: { disk: string }) => {
        const api = await context.api();
        const params = { machine, disk: o.disk };
        return shown(context, await api.call('vm.disk.remove', { params }));
      }),
    );
}

function parseNewDisk(text: string): Pick<AddDiskRequest, 'diskId' | 'file'> {
  if (!text.includes('=')) return { diskId: parseDiskId(text) };
  const { diskId, path, format } = parseDisk(text);
  return { diskId, file: { path, format } };
}
