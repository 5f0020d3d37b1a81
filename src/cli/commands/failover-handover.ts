import type { Command } from 'commander';
import type { AdoptRequest, CedeRequest, JobView, TakeRequest, UndoRequest } from '../../api/index.ts';
import type { Page } from '../page.ts';
import { named, parseDuration } from '../values.ts';
import { printMachine } from '../views/machine-view.ts';
import { reportFailover, reportJob } from '../watch.ts';
import { addChangeOptions, type ChangeOptions, changesOf } from './failover-changes.ts';
import {
  askedOf,
  CONNECT_OPTION,
  type ConnectOption,
  NAME_OPTION,
  networksOf,
  PROBE_OPTION,
  type ProbeOption,
} from './failover-options.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

/** Planned failover: one site cedes a machine, the other one takes it over. */
export function addHandover(failover: Command, runner: Runner): void {
  addCede(failover, runner);
  addTake(failover, runner);
  addWithdraw(failover, runner);
  addUndo(failover, runner);
  addAdopt(failover, runner);
}

interface CedeOptions extends WaitOption {
  readonly to?: string;
  readonly grace?: number;
  readonly powerOff?: boolean;
}

function addCede(failover: Command, runner: Runner): void {
  failover
    .command('cede')
    .description(
      'planned failover, here: shut the machine down, copy its last state, and offer it to the other site',
    )
    .argument('<vm>', 'name or id')
    .option('--to <site>', 'name or id; the first target if absent')
    .option(
      '--grace <time>',
      'how long the guest may take to shut down; 2m if absent',
      named('--grace', parseDuration),
    )
    .option('--power-off', 'cut the power of the guest instead of asking it')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples('warmsite failover cede web', 'warmsite failover cede web --to berlin --grace 5m')}
Nothing is lost by it: the other site has every byte before it is offered the machine. From then on the machine does not run here;
it is started there by warmsite failover take, which may wait for the offer already. A guest that does not shut down in time
is not handed over. Until it is taken, warmsite failover withdraw takes it back.`,
    )
    .action(
      runner.run(async (context, machine: string, { to, grace, powerOff, wait }: CedeOptions) => {
        const body: CedeRequest = {
          ...(to === undefined ? {} : { to }),
          ...(grace === undefined ? {} : { graceMs: grace }),
          ...(powerOff ? { powerOff } : {}),
        };
        const job = await (await context.api()).call('failover.cede', { params: { machine }, body });
        return reportJob(context, job, wait, (ended) => ({
          document: ended,
          print: (page) => page.line(ceded(machine, ended)),
        }));
      }),
    );
}

function ceded(machine: string, { result }: JobView): string {
  const { sequence, epoch, state } = (result ?? {}) as { sequence?: number; epoch?: number; state?: string };
  const last = `Point ${sequence} holds its last state.`;
  if (state === 'follows') return `${machine} was taken over by the other site, in epoch ${epoch}. ${last}`;
  if (state === 'holds') return `${machine} was offered, and the offer was withdrawn meanwhile.`;
  return `${machine} is offered, in epoch ${epoch}. ${last} At the other site: warmsite failover take ${machine}`;
}

interface TakeOptions extends WaitOption, ProbeOption, ConnectOption, ChangeOptions {
  readonly name?: string;
  readonly within?: number;
}

function addTake(failover: Command, runner: Runner): void {
  const command = failover
    .command('take')
    .description('planned failover, at the other site: take over a machine that was offered, and start it')
    .argument('<vm>', 'name or id')
    .option('--within <time>', 'wait so long for the offer', named('--within', parseDuration))
    .option(...PROBE_OPTION)
    .option(...NAME_OPTION)
    .option(...CONNECT_OPTION);
  addChangeOptions(command)
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples(
        'warmsite failover take web --connect lan=bridge:br0',
        'warmsite failover take web --within 10m --connect lan=bridge:br0',
      )}
The machine starts from its last state, and the site that offered it knows that it is at home here. Nobody has to confirm
anything: that site has ended it.`,
    )
    .action(
      runner.run(async (context, machine: string, o: TakeOptions) => {
        const body: TakeRequest = {
          ...(o.within === undefined ? {} : { waitMs: o.within }),
          ...askedOf(o),
          ...networksOf(o),
          ...changesOf(o),
        };
        const job = await (await context.api()).call('failover.take', { params: { machine }, body });
        return reportFailover(context, job, o.wait);
      }),
    );
}

function addWithdraw(failover: Command, runner: Runner): void {
  failover
    .command('withdraw')
    .description(
      'take back a machine that was offered to the other site and not taken over, or that it has given up',
    )
    .argument('<vm>', 'name or id')
    .option(
      '--confirm-other-side-down',
      'your word that the other site is down and has not started the machine: it is not asked',
    )
    .addHelpText(
      'after',
      `${examples('warmsite failover withdraw web')}
The other site is asked to let go of the offer, or of what it has brought up and given up (warmsite failover undo, there); only when it
has promised that may the machine run here again, on its own disks as they are. It is not started by this: warmsite vm start. With
--confirm-other-side-down a machine that was taken over comes back as well, without what was written at the other site since.`,
    )
    .action(
      runner.run(async (context, machine: string, o: { confirmOtherSideDown?: boolean }) => {
        const body = o.confirmOtherSideDown ? { confirmOtherSideDown: true as const } : {};
        const view = await (await context.api()).call('failover.withdraw', { params: { machine }, body });
        return { document: view, print: (page) => printMachine(page, view, context.nowMs) };
      }),
    );
}

interface UndoOptions extends WaitOption {
  readonly grace?: number;
  readonly now?: true;
}

function addUndo(failover: Command, runner: Runner): void {
  failover
    .command('undo')
    .description(
      'end what a failover has brought up here, and give it up: the machine is as before where it was',
    )
    .argument('<vm>', 'name or id')
    .option(
      '--grace <time>',
      'how long the guest may take to shut down before its power is cut; 1m if absent',
      named('--grace', parseDuration),
    )
    .option('--now', 'cut its power at once')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples('warmsite failover undo web', 'warmsite failover undo web --grace 5m')}
Until a failover is made permanent (warmsite failover adopt) it can be undone. Nobody runs the machine then, until the site where it was
takes it back: warmsite failover withdraw, there. It goes on there with its own disks, as they were left, and its copies go on as
differences. What was written here since stays in the branch, which a person discards: warmsite failover cleanup.`,
    )
    .action(
      runner.run(async (context, machine: string, { grace, now, wait }: UndoOptions) => {
        const graceMs = now ? 0 : grace;
        const body: UndoRequest = graceMs === undefined ? {} : { graceMs };
        const job = await (await context.api()).call('failover.undo', { params: { machine }, body });
        return reportJob(context, job, wait, (ended) => ({
          document: ended,
          print: (page) => printUndo(page, machine, ended),
        }));
      }),
    );
}

/** What `UndoReport` says, for people. */
function printUndo(page: Page, machine: string, { result }: JobView): void {
  const { epoch, branches = [] } = (result ?? {}) as {
    epoch?: number;
    branches?: { branchId: string; name?: string; ended: string; point: { sequence: number } }[];
  };
  page.line(`${machine} is given up here, in epoch ${epoch}, and runs nowhere.`);
  for (const { branchId, name, ended, point } of branches) {
    const how = ended === 'not-running' ? 'did not run' : ended.replace('-', ' ');
    page.line(
      `Branch ${name ?? branchId} of point ${point.sequence}: ${how}; what was written in it is kept.`,
    );
  }
  page.line(`Where it was before: warmsite failover withdraw ${machine}, and warmsite vm start ${machine}`);
}

function addAdopt(failover: Command, runner: Runner): void {
  failover
    .command('adopt')
    .description('commit a failover: make what runs here the machine itself, at home at this site, for good')
    .argument('<vm>', 'name or id')
    .argument('[branch]', 'name or id; the one that runs if absent')
    .option(...CONNECT_OPTION)
    .addHelpText(
      'after',
      `${examples('warmsite failover adopt web', 'warmsite vm protect web --to berlin')}
After this there is no undoing it (warmsite failover undo). It runs on meanwhile; --connect says where its NICs go when it is started again, if that is not where they are now. From then on it is started, stopped, copied and handed over like any other machine of this site, and
the points that it lies upon stay as they are. Replicated back to the site where it was before, only what differs from the disks there
crosses the wire; handed over, it is at home there again.`,
    )
    .action(
      runner.run(async (context, machine: string, branch: string | undefined, o: ConnectOption) => {
        const body: AdoptRequest = { ...(branch === undefined ? {} : { branch }), ...networksOf(o) };
        const view = await (await context.api()).call('failover.adopt', { params: { machine }, body });
        return { document: view, print: (page) => printMachine(page, view, context.nowMs) };
      }),
    );
}
