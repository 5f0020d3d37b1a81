import type { Command } from 'commander';
import type { LeaseRequest } from '../../api/index.ts';
import type { Context, Report } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { named, parseDuration } from '../values.ts';
import { examples, type Runner } from './runner.ts';
import { shown } from './shown.ts';

interface LeaseOptions {
  readonly witness?: string;
  readonly recovery?: string;
  readonly for?: number;
  readonly off?: boolean;
  readonly confirmOtherSideDown?: boolean;
  readonly forget?: boolean;
  readonly confirmNotRun?: boolean;
}

export function addLeaseCommands(vm: Command, runner: Runner): void {
  vm.command('lease')
    .description('run a machine only while another site lends it that, so that two never run it')
    .argument('<vm>', 'name or id')
    .option('--witness <site>', 'a third site, paired with both; it gets nothing of the machine')
    .option('--recovery <site>', 'the other site that may run it; its first target if absent')
    .option('--for <duration>', 'how long it is lent at a time; 30s if absent', named('--for', parseDuration))
    .option('--off', 'it runs by no lease any more')
    .option(
      '--confirm-other-side-down',
      'with --off: your word that the other site is down for good; it is not asked',
    )
    .option('--forget', 'at a witness: it knows nothing of the leases of that machine any more')
    .option(
      '--confirm-not-run',
      'with --forget: your word that neither of the sites of which it knows runs the machine by those leases or by its vote',
    )
    .addHelpText(
      'after',
      `${examples(
        'warmsite vm lease web --witness quorum',
        'warmsite vm lease web --witness quorum --recovery east --for 15s',
        'warmsite vm lease web --off',
        'warmsite vm lease web --forget --confirm-not-run',
      )}
From then on the guest stands still when neither of the two sites has answered for so long, also when the process of this site has
ended. The other site can then bring the machine up without anybody's word: warmsite failover start web --ask-witness.`,
    )
    .action(runner.run(lease));
}

async function lease(context: Context, machine: string, o: LeaseOptions): Promise<Report> {
  const { witness, recovery, off, forget } = o;
  if ([witness, off, forget].filter((one) => one !== undefined).length !== 1)
    throw cliFailure('CLI_USAGE', 'name a --witness, or say --off, or --forget at a witness');
  const params = { machine };
  if (forget) {
    if (!o.confirmNotRun) {
      await context.confirm({
        question: `Neither of the sites that this witness knows for ${machine} may run it: not by leases, by a vote or for good.`,
        word: machine,
        option: '--confirm-not-run',
      });
    }
    const done = await (await context.api()).call('lease.forget', { params, body: { confirmNotRun: true } });
    return {
      document: done,
      print: (page) => page.line(`Nothing is known of the leases of ${machine} here.`),
    };
  }
  const api = await context.api();
  if (off) {
    const body = o.confirmOtherSideDown ? { confirmOtherSideDown: true as const } : {};
    return shown(context, await api.call('vm.lease.end', { params, body }));
  }
  const body: LeaseRequest = {
    witness: witness!,
    ...(recovery === undefined ? {} : { recovery }),
    ...(o.for === undefined ? {} : { leaseMs: o.for }),
  };
  return shown(context, await api.call('vm.lease', { params, body }));
}
