import type { Command } from 'commander';
import type { AddMachineRequest, MachineView, Retention } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { formatDuration } from '../format.ts';
import {
  type MachineOptions,
  machineFromFile,
  managedMachine,
  parseBootOrder,
  parseCd,
  parseDisk,
  parseFirmwareVariables,
  parseNic,
} from '../machine-description.ts';
import {
  newTargetOf,
  type PolicyOptions,
  policyOf,
  policyRetentionOf,
  withPolicyOptions,
} from '../policy-options.ts';
import { listed, named, parseCount, parseDuration, parseSize } from '../values.ts';
import { printMachines } from '../views/machine-view.ts';
import { printPreview } from '../views/policy-view.ts';
import { followSeeding } from '../watch.ts';
import { addCopyTypeCommands } from './copy-type-commands.ts';
import { addDiskCommands } from './disk-commands.ts';
import { CONNECT_OPTION, type ConnectOption, networksOf } from './failover-options.ts';
import { addIdentityCommands } from './identity-commands.ts';
import { addLeaseCommands } from './lease-commands.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';
import { shown } from './shown.ts';
import { addTargetCommands } from './target-commands.ts';
import { addTriggerCommands } from './trigger-commands.ts';

export function addMachineCommands(program: Command, runner: Runner): void {
  const vm = program.command('vm').description('machines: add, start, protect, look at');
  addAdd(vm, runner);
  vm.command('list')
    .description('list the machines of this site, at home and replicated')
    .addHelpText('after', examples('warmsite vm list', "warmsite vm list --json | jq '.[].name'"))
    .action(
      runner.run(async (context) => {
        const machines = await (await context.api()).call('vm.list', {});
        return { document: machines, print: (page) => printMachines(page, machines, context.nowMs) };
      }),
    );
  vm.command('show')
    .description('show a machine: process, disk files, protection, replication')
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite vm show web'))
    .action(runner.run(async (context, machine: string) => shown(context, await view(context, machine))));
  addRunning(vm, runner);
  addProtection(vm, runner);
  addTargetCommands(vm, runner);
  addLeaseCommands(vm, runner);
  addCopyTypeCommands(vm, runner);
  addDiskCommands(vm, runner);
  addTriggerCommands(vm, runner);
  addIdentityCommands(vm, runner);
  vm.command('remove')
    .description('forget a machine that is not protected; its process and disks stay as they are')
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite vm remove web'))
    .action(
      runner.run(async (context, machine: string) => {
        const done = await (await context.api()).call('vm.remove', { params: { machine } });
        return {
          document: done,
          print: (page) => page.line(`${machine} is forgotten; its disks are untouched.`),
        };
      }),
    );
}

async function view(context: Context, machine: string): Promise<MachineView> {
  return (await context.api()).call('vm.show', { params: { machine } });
}

interface AddOptions extends Partial<MachineOptions>, ConnectOption {
  readonly from?: string;
  readonly attach?: string;
  readonly agent?: string;
}

function addAdd(vm: Command, runner: Runner): void {
  const cpus = named('--cpus', (text) => parseCount(text, 1, 1024));
  vm.command('add')
    .description('add a machine: one that this site starts, or one that runs already')
    .option('--name <name>', 'name of the machine')
    .option('--memory <size>', 'memory, such as 2G', named('--memory', parseSize))
    .option('--cpus <number>', 'virtual processors', cpus, 1)
    .option(
      '--disk <ID=PATH[:format]>',
      'a disk; the first one boots; repeatable',
      listed('--disk', parseDisk),
    )
    .option(
      '--nic <ID[=NETWORK]>',
      'a NIC, with ,mac= and ,model= if you like; repeatable',
      listed('--nic', parseNic),
    )
    .option(
      '--cd <ID[=PATH]>',
      'a CD drive, with the file that lies in it; repeatable',
      listed('--cd', parseCd),
    )
    .option(
      '--boot <ID,…>',
      'what is tried to boot from, the first one first; the disks if absent',
      named('--boot', parseBootOrder),
    )
    .option(...CONNECT_OPTION)
    .option('--bus <bus>', 'virtio-blk, virtio-scsi, ide or sata, for all disks', 'virtio-blk')
    .option('--chipset <chipset>', 'q35 or pc', 'q35')
    .option('--firmware <firmware>', 'bios or uefi', 'bios')
    .option(
      '--firmware-variables <PATH[:format]>',
      'with uefi: the file of its variables, replicated as a disk is',
      named('--firmware-variables', parseFirmwareVariables),
    )
    .option('--tpm <directory>', 'it has a TPM 2.0, whose emulator has its state there')
    .option('--tpm-model <model>', 'with --tpm: tpm-crb or tpm-tis', 'tpm-crb')
    .option('--cpu-model <model>', 'as QEMU calls it; needed where the two sites have different processors')
    .option('--machine-version <type>', 'versioned machine type, such as pc-q35-7.2')
    .option('--uuid <uuid>', 'UUID of the machine; made up if absent')
    .option('--no-guest-agent', 'the guest has no guest agent')
    .option(
      '--qemu-argument <argument>',
      'handed to QEMU as it is; repeatable',
      listed('--qemu-argument', String),
    )
    .option('--from <file>', 'take all of it from a JSON file: {"configuration": …, "disks": […]}')
    .option('--attach <qmp>', 'a machine that runs already: path of its QMP socket')
    .option('--agent <socket>', 'with --attach: path of the socket of its guest agent')
    .addHelpText(
      'after',
      examples(
        'warmsite vm add --name web --memory 2G --cpus 2 --disk root=/srv/images/web.qcow2 --nic lan=br0',
        'warmsite vm add --attach /run/vm/db.qmp --agent /run/vm/db.qga --name db',
        'warmsite vm add --from web.json',
      ),
    )
    .action(
      runner.run(async (context, o: AddOptions) => {
        const body = await addRequest(context, o);
        return shown(context, await (await context.api()).call('vm.add', { body }));
      }),
    );
}

async function addRequest(context: Context, o: AddOptions): Promise<AddMachineRequest> {
  const { files, random } = context.world;
  if (o.from !== undefined) return machineFromFile(files, context.path(o.from));
  if (o.attach !== undefined) {
    const attach = {
      qmpPath: context.path(o.attach),
      ...(o.agent === undefined ? {} : { agentPath: context.path(o.agent) }),
      ...(o.tpm === undefined ? {} : { tpmDirectory: context.path(o.tpm) }),
      ...(o.name === undefined ? {} : { name: o.name }),
    };
    return { attach };
  }
  const { name, memory, disk } = o;
  if (name === undefined || memory === undefined || disk === undefined) {
    throw cliFailure(
      'CLI_USAGE',
      'a machine needs --name, --memory and --disk; or --from FILE; or --attach SOCKET',
    );
  }
  // The other options have defaults, which commander has filled in.
  const asked = { ...(o as MachineOptions), name, memory, disk, ...networksOf(o) };
  return managedMachine(random, asked, (path) => context.path(path));
}

function addRunning(vm: Command, runner: Runner): void {
  vm.command('start')
    .description('start a machine of this site; it runs on when the site is not served')
    .argument('<vm>', 'name or id')
    .addHelpText('after', examples('warmsite vm start web'))
    .action(
      runner.run(async (context, machine: string) =>
        shown(context, await (await context.api()).call('vm.start', { params: { machine } })),
      ),
    );
  vm.command('stop')
    .description('ask the guest to shut down and wait until it has')
    .argument('<vm>', 'name or id')
    .option('--force', 'pull the plug instead')
    .option('--limit <duration>', 'how long the guest may take', named('--limit', parseDuration))
    .addHelpText(
      'after',
      examples('warmsite vm stop web', 'warmsite vm stop web --limit 5m', 'warmsite vm stop web --force'),
    )
    .action(
      runner.run(async (context, machine: string, o: { force?: boolean; limit?: number }) => {
        const body = {
          ...(o.force === undefined ? {} : { force: o.force }),
          ...(o.limit === undefined ? {} : { limitMs: o.limit }),
        };
        return shown(context, await (await context.api()).call('vm.stop', { params: { machine }, body }));
      }),
    );
}

function addProtection(vm: Command, runner: Runner): void {
  withPolicyOptions(vm.command('protect').description('replicate a machine to another site from now on'))
    .argument('<vm>', 'name or id')
    .option('--to <site>', 'the recovery site; the only paired one if absent')
    .option('--seed', 'the base goes by courier: nothing is sent before `warmsite seed export`')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      examples(
        'warmsite vm protect web --to south --crash-every 30s --app-every 15m --keep-crash 20 --keep-app 8',
        'warmsite vm protect db --rate 100Mbit/s --no-wait',
        "warmsite vm protect erp --schedule 'app=at 0 2 * * * Europe/Berlin' --keep app:7",
      ),
    )
    .action(runner.run(protect));
  withPolicyOptions(
    vm.command('policy').description('change how a protected machine is replicated; what is not named stays'),
  )
    .argument('<vm>', 'name or id')
    .option('--preview', 'change nothing; show which of the present points would stay')
    .addHelpText(
      'after',
      examples(
        'warmsite vm policy web --keep crash:4 --preview',
        'warmsite vm policy web --crash-every 10s',
        'warmsite vm policy web --app-every off --rate unlimited',
        "warmsite vm policy web --blackout 'Mon-Fri 08:00-10:00 Europe/Berlin'",
        "warmsite vm policy web --keep crash:8,app:4 --keep-calendar 'daily:7,weekly:4 Europe/Berlin'",
      ),
    )
    .action(runner.run(changePolicy));
  vm.command('unprotect')
    .description(
      'end the replication; the disks hold everything again, the points at the other site stay there',
    )
    .argument('<vm>', 'name or id')
    .option(
      '--keep-origin',
      'after a stale base: keep what the files of the machine hold now, set the layers aside',
    )
    .option(
      '--confirm-other-side-down',
      'of a fenced machine: your word that it does not run at the site that holds it',
    )
    .addHelpText('after', examples('warmsite vm unprotect web'))
    .action(
      runner.run(async (context, machine: string, o: UnprotectOptions) => {
        const body = {
          keepOrigin: o.keepOrigin ?? false,
          ...(o.confirmOtherSideDown ? { confirmOtherSideDown: true as const } : {}),
        };
        const api = await context.api();
        return shown(context, await api.call('vm.unprotect', { params: { machine }, body }));
      }),
    );
}

interface UnprotectOptions {
  readonly keepOrigin?: boolean;
  readonly confirmOtherSideDown?: boolean;
}

async function protect(
  context: Context,
  machine: string,
  o: PolicyOptions & WaitOption & { to?: string; seed?: boolean },
): Promise<Report> {
  const body = {
    ...newTargetOf(policyOf(o, undefined)),
    ...(o.to === undefined ? {} : { target: o.to }),
    ...(o.seed ? { seed: true } : {}),
  };
  const begun = await (await context.api()).call('vm.protect', { params: { machine }, body });
  if (!o.wait) return shown(context, begun);
  const { machine: seeded, waiting } = await followSeeding(context, begun);
  return {
    document: seeded,
    print: (page) => {
      const first = seeded.protected?.replication?.acknowledged;
      if (first)
        page.line(
          { text: `${seeded.name} is protected: `, tone: 'good' },
          `point ${first.sequence} is verified at the other site.`,
        );
      else
        page.line(
          { text: `${seeded.name} is protected, but no copy is on its way: `, tone: 'warning' },
          waiting ?? '',
        );
      const targetMs = seeded.protected?.replication?.rpo.targetMs;
      if (targetMs !== undefined) page.line(`A copy is made every ${formatDuration(targetMs)}.`);
    },
  };
}

async function previewed(
  context: Context,
  machine: string,
  retention: Retention | undefined,
): Promise<Report> {
  const body = retention ? { retention } : {};
  const preview = await (await context.api()).call('retention.preview', { params: { machine }, body });
  return { document: preview, print: (page) => printPreview(page, preview, context.nowMs) };
}

async function changePolicy(
  context: Context,
  machine: string,
  o: PolicyOptions & { preview?: boolean },
): Promise<Report> {
  const { protected: atHome, replica } = await view(context, machine);
  const before = atHome?.protection ?? undefined;
  if (o.preview)
    return previewed(context, machine, policyRetentionOf(o, before?.retention ?? replica?.retention));
  const body = policyOf(o, before);
  if (Object.keys(body).length === 0) throw cliFailure('CLI_USAGE', 'name at least one option to change');
  return shown(context, await (await context.api()).call('vm.policy', { params: { machine }, body }));
}
