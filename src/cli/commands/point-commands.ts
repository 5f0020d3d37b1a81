import type { Command } from 'commander';
import { named, parseDuration, parseName } from '../values.ts';
import { printPoint, printPoints } from '../views/point-view.ts';
import { reportJob } from '../watch.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

export function addPointCommands(program: Command, runner: Runner): void {
  const point = program.command('point').description('recovery points: list, make, verify');
  point
    .command('list')
    .description(
      'list the points of a machine: at the recovery site those that stand, elsewhere the copies made',
    )
    .argument('<vm>', 'name or id')
    .addHelpText(
      'after',
      examples('warmsite point list web', "warmsite point list web --json | jq '.[-1].sequence'"),
    )
    .action(
      runner.run(async (context, machine: string) => {
        const points = await (await context.api()).call('point.list', { params: { machine } });
        return { document: points, print: (page) => printPoints(page, points, context.nowMs) };
      }),
    );
  point
    .command('show')
    .description('show one point with its proofs and disks')
    .argument('<vm>', 'name or id')
    .argument('<point>', 'number, id, latest or latest-application')
    .addHelpText('after', examples('warmsite point show web latest', 'warmsite point show web 17'))
    .action(
      runner.run(async (context, machine: string, which: string) => {
        const view = await (await context.api()).call('point.show', { params: { machine, point: which } });
        return { document: view, print: (page) => printPoint(page, view, context.nowMs) };
      }),
    );
  addCreate(point, runner);
  addVerify(point, runner);
  addHold(point, runner);
}

function addHold(point: Command, runner: Runner): void {
  point
    .command('hold')
    .description('keep a point whatever retention says; at the recovery site')
    .argument('<vm>', 'name or id')
    .argument('<point>', 'number, id, latest or latest-application')
    .requiredOption('--reason <text>', 'why; it is shown with the point')
    .option(
      '--for <duration>',
      'how long, such as 30d; until it is released if absent',
      named('--for', parseDuration),
    )
    .addHelpText(
      'after',
      examples(
        "warmsite point hold web 17 --reason 'before the upgrade'",
        'warmsite point hold web latest --reason audit --for 90d',
      ),
    )
    .action(
      runner.run(async (context, machine: string, which: string, o: { reason: string; for?: number }) => {
        const body = { reason: o.reason, ...(o.for === undefined ? {} : { forMs: o.for }) };
        const params = { machine, point: which };
        const view = await (await context.api()).call('point.hold', { params, body });
        return { document: view, print: (page) => printPoint(page, view, context.nowMs) };
      }),
    );
  point
    .command('release')
    .description('end the hold of a point: retention decides about it again')
    .argument('<vm>', 'name or id')
    .argument('<point>', 'number, id, latest or latest-application')
    .addHelpText('after', examples('warmsite point release web 17'))
    .action(
      runner.run(async (context, machine: string, which: string) => {
        const params = { machine, point: which };
        const view = await (await context.api()).call('point.release', { params });
        return { document: view, print: (page) => printPoint(page, view, context.nowMs) };
      }),
    );
}

function addCreate(point: Command, runner: Runner): void {
  point
    .command('create')
    .description('make a copy now, at the site where the machine is at home')
    .argument('<vm>', 'name or id')
    .option(
      '--type <type>',
      'crash; app: the guest flushes first; or a type of the machine, see vm copy-type',
      named('--type', parseName),
      'crash',
    )
    .option('--wait', 'wait until it is verified at the recovery site', true)
    .option('--no-wait', 'return as soon as the disks are cut')
    .addHelpText(
      'after',
      examples('warmsite point create web --type app', 'warmsite point create web --no-wait'),
    )
    .action(
      runner.run(async (context, machine: string, o: WaitOption & { type: string }) => {
        const body = { type: o.type, wait: o.wait };
        const created = await (await context.api()).call('point.create', { params: { machine }, body });
        if ('point' in created) {
          const { point: made } = created;
          return { document: created, print: (page) => printPoint(page, made, context.nowMs) };
        }
        return reportJob(context, created.job, o.wait, (job) => ({
          document: { job },
          print: (page) =>
            awaitsSeed(job.result)
              ? page.line(
                  { text: 'The copy is at the recovery site and awaits its seed', tone: 'warning' },
                  numberIn(job.result),
                )
              : page.line(
                  { text: 'The copy is verified at the recovery site', tone: 'good' },
                  numberIn(job.result),
                ),
        }));
      }),
    );
}

function addVerify(point: Command, runner: Runner): void {
  point
    .command('verify')
    .description('read every block of a point and compare it with what was signed; at the recovery site')
    .argument('<vm>', 'name or id')
    .argument('[point]', 'number, id, latest or latest-application', 'latest')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText('after', examples('warmsite point verify web', 'warmsite point verify web 17 --no-wait'))
    .action(
      runner.run(async (context, machine: string, which: string, o: WaitOption) => {
        const job = await (await context.api()).call('point.verify', { params: { machine, point: which } });
        return reportJob(context, job, o.wait, (ended) => ({
          document: ended,
          print: (page) =>
            page.line(
              { text: 'Verified: ', tone: 'good' },
              `every block of point ${which} equals what was signed.`,
            ),
        }));
      }),
    );
}

function awaitsSeed(result: unknown): boolean {
  return (result as { awaitsSeed?: unknown } | undefined)?.awaitsSeed === true;
}

function numberIn(result: unknown): string {
  const { sequence } = (result ?? {}) as { sequence?: unknown };
  return typeof sequence === 'number' ? `, as point ${sequence}.` : '.';
}
