import type { Command } from 'commander';
import type { PlanCheck, PlanDocument, PlanRun, RunPlanWish } from '../../api/index.ts';
import { EXIT_FOUND_BAD } from '../context.ts';
import { cliFailure } from '../errors.ts';
import { loadPlans, readPlan } from '../plan-file.ts';
import { named, parseDuration } from '../values.ts';
import { printCheck, printEstimate, printPlan, printPlans, printRun, printRuns } from '../views/plan-view.ts';
import { reportJob } from '../watch.ts';
import { addRehearse } from './plan-rehearse.ts';
import { examples, type Runner, WAIT_FLAGS, type WaitOption } from './runner.ts';

export function addPlanCommands(program: Command, runner: Runner): void {
  const plan = program
    .command('plan')
    .description('recovery plans: several machines in order, with gates in the place of waiting');
  addKeeping(plan, runner);
  addLooking(plan, runner);
  addRun(plan, runner);
  addRuns(plan, runner);
  addRehearse(plan, runner);
}

function addKeeping(plan: Command, runner: Runner): void {
  plan
    .command('check')
    .description('say what is wrong with a plan, by itself and at this site; store nothing')
    .argument(
      '<file>',
      'YAML, JSON, or a module of TypeScript or JavaScript with the plan as its default export',
    )
    .option('--offline', 'by itself only: no site is asked, and none need be there')
    .addHelpText(
      'after',
      `${examples('warmsite plan check shop.yaml', 'warmsite plan check shop.plan.ts --offline')}
Something that is wrong makes the exit code 1; a warning does not.`,
    )
    .action(
      runner.run(async (context, file: string, { offline }: { readonly offline?: boolean }) => {
        const body = await readPlan(context.world.files, file);
        const check: PlanCheck = offline
          ? await checkOffline(body)
          : await (await context.api()).call('plan.check', { body });
        const isBad = check.findings.some(({ severity }) => severity === 'error');
        return {
          document: check,
          print: (page) => printCheck(page, check),
          ...(isBad ? { exitCode: EXIT_FOUND_BAD } : {}),
        };
      }),
    );
  plan
    .command('put')
    .description('store a plan at this site, in the place of the one of that name')
    .argument('<file>', 'as for check')
    .addHelpText(
      'after',
      `${examples('warmsite plan put shop.yaml')}
Paired sites are told, so that each has it on the day on which the other one is gone. If both have changed it without each other, both keep
what they have and say so, until somebody puts it once more at either.`,
    )
    .action(
      runner.run(async (context, file: string) => {
        const body = await readPlan(context.world.files, file);
        const check = await (await context.api()).call('plan.put', { body });
        return { document: check, print: (page) => printCheck(page, check) };
      }),
    );
  plan
    .command('remove')
    .description('forget a plan, at this site and at those that are paired with it')
    .argument('<plan>', 'its name')
    .addHelpText('after', examples('warmsite plan remove shop'))
    .action(
      runner.run(async (context, name: string) => {
        const done = await (await context.api()).call('plan.remove', { params: { plan: name } });
        return { document: done, print: (page) => page.line(`This site has no plan ${name} any more.`) };
      }),
    );
}

async function checkOffline(document: PlanDocument): Promise<PlanCheck> {
  const { checkPlan } = await loadPlans();
  const { order, findings } = checkPlan(document);
  return { plan: document.plan, order: order.map((wave) => [...wave]), findings: [...findings] };
}

function addLooking(plan: Command, runner: Runner): void {
  plan
    .command('list')
    .description('the plans of this site')
    .addHelpText('after', examples('warmsite plan list'))
    .action(
      runner.run(async (context) => {
        const plans = await (await context.api()).call('plan.list', {});
        return { document: plans, print: (page) => printPlans(page, plans, context.nowMs) };
      }),
    );
  plan
    .command('show')
    .description('a plan, as this site has it')
    .argument('<plan>', 'its name')
    .addHelpText('after', examples('warmsite plan show shop'))
    .action(
      runner.run(async (context, name: string) => {
        const view = await (await context.api()).call('plan.show', { params: { plan: name } });
        return { document: view, print: (page) => printPlan(page, view, context.nowMs) };
      }),
    );
  plan
    .command('diff')
    .description('what would change by storing a file')
    .argument('<file>', 'as for check')
    .addHelpText('after', examples('warmsite plan diff shop.yaml'))
    .action(
      runner.run(async (context, file: string) => {
        const body = await readPlan(context.world.files, file);
        const { changes } = await (await context.api()).call('plan.check', { body });
        const lines = changes ?? ['This site has no plan of that name yet.'];
        return {
          document: { changes: changes ?? null },
          print: (page) => {
            for (const line of lines.length > 0 ? lines : ['Nothing would change.']) page.line(line);
          },
        };
      }),
    );
  plan
    .command('estimate')
    .description('how long it would take, from what isolated boots of its machines took')
    .argument('<plan>', 'its name')
    .addHelpText('after', examples('warmsite plan estimate shop'))
    .action(
      runner.run(async (context, name: string) => {
        const estimate = await (await context.api()).call('plan.estimate', { params: { plan: name } });
        return { document: estimate, print: (page) => printEstimate(page, estimate) };
      }),
    );
}

interface RunOptions extends WaitOption {
  readonly test?: boolean;
  readonly unplanned?: boolean;
  readonly planned?: boolean;
  readonly take?: boolean;
  readonly cede?: boolean;
  readonly confirmOtherSideDown?: boolean;
  readonly askWitness?: boolean;
  readonly fence?: boolean;
  readonly within?: number;
  readonly to?: string;
}

function modeOf(options: RunOptions): RunPlanWish['mode'] {
  const modes = ['test', 'planned', 'unplanned', 'take', 'cede'] as const;
  const [mode, second] = modes.filter((one) => options[one]);
  if (mode && !second) return mode;
  throw cliFailure('CLI_USAGE', 'say what is to be done: one of --test, --planned, --unplanned');
}

function requestOf(options: RunOptions): RunPlanWish {
  const { within, to, confirmOtherSideDown, askWitness, fence } = options;
  return {
    mode: modeOf(options),
    ...(within === undefined ? {} : { waitMs: within }),
    ...(to === undefined ? {} : { to }),
    ...(confirmOtherSideDown ? { confirmOtherSideDown: true as const } : {}),
    ...(askWitness ? { askWitness: true as const } : {}),
    ...(fence ? { fence: true as const } : {}),
  };
}

function addRun(plan: Command, runner: Runner): void {
  plan
    .command('run')
    .description('carry a plan out')
    .argument('<plan>', 'its name')
    .option('--test', 'all in isolation, where they see each other, and thrown away')
    .option('--planned', 'move them while both sites are there: at each site what is to be done there')
    .option('--unplanned', 'bring all up here, without the other site')
    .option('--take', 'the half of --planned at the site that they go to: take each over as it is offered')
    .option('--cede', 'its half where they run: hand each over, those that others need last')
    .option(
      '--confirm-other-side-down',
      'with --unplanned: your word that they no longer run at the other site',
    )
    .option(
      '--ask-witness',
      'with --unplanned: ask the witness of each that has one; your word, or --fence, is for the others',
    )
    .option('--fence', 'with --unplanned: have the fencing program make sure, of each, that it is down')
    .option(
      '--within <time>',
      'at the site that they go to: wait so long for each offer (--planned: an hour if absent, --take: not at all)',
      named('--within', parseDuration),
    )
    .option('--to <site>', 'where they run: name or id; the first target of each machine if absent')
    .option(...WAIT_FLAGS.wait)
    .option(...WAIT_FLAGS.noWait)
    .addHelpText(
      'after',
      `${examples(
        'warmsite plan run shop --test',
        'warmsite plan run shop --unplanned --confirm-other-side-down',
        'warmsite plan run shop --planned                # at the site that they go to, and where they run',
      )}
A machine begins when all that it waits for are up. If one does not come up, those that need it stay where they are, and all others go
on. The run goes on at the site, also after a restart of it.`,
    )
    .action(
      runner.run(async (context, name: string, options: RunOptions) => {
        const api = await context.api();
        const { run, job } = await api.call('plan.run', { params: { plan: name }, body: requestOf(options) });
        if (options.planned) context.world.messages.write(`${otherHalf(run)}\n`);
        return reportJob(context, job, options.wait, (ended) => {
          // The job of a run answers with the run.
          const run = ended.result as PlanRun;
          return {
            document: run,
            print: (page) => printRun(page, run),
            ...(run.verdict === 'done' ? {} : { exitCode: EXIT_FOUND_BAD }),
          };
        });
      }),
    );
}

/** What a planned move wants at the other site. */
function otherHalf({ request, document: { plan } }: PlanRun): string {
  const command = `warmsite plan run ${plan} --planned`;
  return request.mode === 'take'
    ? `This site takes the machines of ${plan} over as they are offered. Where they run now: ${command}`
    : `This site hands the machines of ${plan} over. At the site that they go to, if it does not wait for them yet: ${command}`;
}

function addRuns(plan: Command, runner: Runner): void {
  plan
    .command('runs')
    .description('how plans were carried out, or one run')
    .argument('[run]', 'id')
    .addHelpText('after', examples('warmsite plan runs', 'warmsite plan runs 01jh2v0m8v7d6e5f4g3h2j1k0m'))
    .action(
      runner.run(async (context, runId: string | undefined) => {
        const api = await context.api();
        if (runId === undefined) {
          const runs = await api.call('plan.runs', {});
          return { document: runs, print: (page) => printRuns(page, runs, context.nowMs) };
        }
        const run = await api.call('plan.showRun', { params: { run: runId } });
        return { document: run, print: (page) => printRun(page, run) };
      }),
    );
  plan
    .command('approve')
    .description('say yes to what a run asks before it starts a machine')
    .argument('<run>', 'id')
    .argument('<machine>', 'as the plan calls it')
    .addHelpText('after', examples('warmsite plan approve 01jh2v0m8v7d6e5f4g3h2j1k0m web'))
    .action(
      runner.run(async (context, runId: string, machine: string) => {
        const run = await (await context.api()).call('plan.approve', {
          params: { run: runId },
          body: { machine },
        });
        return { document: run, print: (page) => printRun(page, run) };
      }),
    );
}
