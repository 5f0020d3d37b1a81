/** One machine of a plan of which it cannot be read how it stands hinders no other one. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { GroupPointView, PlanRun, StartedRun } from '../../../src/api/index.ts';
import { RecoveryPlans } from '../../../src/control/acts/plan-acts.ts';
import { PlanStanding } from '../../../src/control/acts/plan-standing.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { pointsOfCuts } from '../../../src/control/plans/plan-cuts.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import type { Tenure } from '../../../src/recovery-point/index.ts';
import { eventually } from '../../support/eventually.ts';
import { jobsIn } from '../../support/jobs-by-hand.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const HELD: Tenure = { state: 'holds', claim: { epoch: 1, siteId: 'north' } };
const OFFERED: Tenure = { ...HELD, state: 'cedes', offer: { epoch: 2, siteId: 'south' } };
const GIVEN: Tenure = { state: 'follows', claim: { epoch: 2, siteId: 'south' } };
const SHOP = { plan: 'shop', machines: { db: {}, web: {} } };

/** A site with replicas of both machines of a plan. Of `db` the state of a branch cannot be read; `up` runs. */
async function site(
  t: CleanUp,
  o: {
    readonly up?: string;
    /** How the site stands with its right to run a machine that is at home here. */
    readonly tenures?: Readonly<Record<string, Tenure>>;
    /** There is one that cannot be opened, of which no name is known. */
    readonly isBroken?: boolean;
    /** How the site stands with its right to run what it has replicas of. */
    readonly right?: Tenure;
    /** There are two that are called `web`. */
    readonly isTwice?: boolean;
  } = {},
) {
  const events = new EventHub();
  const alerts = { raise: () => undefined, clear: () => undefined };
  const store = await PlanStore.open(
    { files: nodeFiles, clock: systemClock, alerts, events },
    await temporaryDirectory(t),
  );
  await store.put(SHOP);
  const { open, runs } = await jobsIn(t);
  const { jobs, close } = open();
  t.after(close);
  const checked: string[] = [];
  const { tenures } = o;
  const known = Object.keys(tenures ?? SHOP.machines).map((name) => ({ machineId: name, name }));
  const machines = [...known, ...(o.isTwice ? [{ machineId: 'x', name: 'web' }] : [])].map((machine) => ({
    ...machine,
    home: tenures && { record: { tenure: tenures[machine.name] } },
    replica: tenures
      ? undefined
      : { newest: { statement: { pointId: machine.machineId } }, record: { tenure: o.right ?? HELD } },
  }));
  const inventory = {
    all: () => machines,
    find: (wanted: string) => machines.find(({ name }) => name === wanted),
    broken: o.isBroken ? [{ machineId: 'x', error: new Error('it is damaged') }] : [],
  };
  const cede = (actor: string, machineId: string, { to }: { readonly to?: string }) =>
    jobs.start({ kind: 'failover.cede', args: { to }, actor, machineId });
  /** Whose programs were run. */
  const hooked: string[] = [];
  const tools = {
    programs: {
      lackOf: async () => undefined,
      run: async () => {
        hooked.push('run');
        return { outcome: 'passed', tookMs: 1 };
      },
    },
    ...{ store, events, files: nodeFiles, log: silentLog, siteName: 'north', clock: systemClock, bootClock },
    ...{ random: systemRandom, jobs: () => jobs, inventory, handovers: { cede } },
    failovers: {
      list: async (machine: string) => {
        if (machine === 'db') throw libFailure('RECORD_CORRUPT', 'state.json is damaged');
        return machine === o.up ? [{ purpose: 'failover', running: true, state: 'probed' }] : [];
      },
      checkTogether: async (members: readonly { pointId: string }[]) =>
        void checked.push(...members.map(({ pointId }) => pointId)),
    },
  } as unknown as ConstructorParameters<typeof RecoveryPlans>[0];
  return {
    plans: new RecoveryPlans(tools),
    standing: new PlanStanding(tools),
    checked,
    store,
    runs,
    jobs,
    hooked,
  };
}

it('F5 a plan is carried out without the other site also where one of its machines cannot be read', async (t) => {
  const { plans, checked, store } = await site(t);
  const { run } = await plans.run('operator:a', 'shop', { mode: 'unplanned', confirmOtherSideDown: true });
  assert.equal(store.needRun(run.runId).endedAtMs, undefined);
  assert.deepEqual(checked, ['web']);
});

it('F5 machines of one cut do not come up where it cannot be read from which one of them is up; the refusal says so', async () => {
  const cut = { cutId: 'c', consistency: 'crash', members: [{ machineId: 'db', pointId: 'p' }] };
  const chosen = pointsOfCuts(
    { ...SHOP, oneCut: ['pair'] },
    {
      points: async () => [cut as unknown as GroupPointView],
      idOf: (machine) => machine,
      upFrom: () => Promise.reject(libFailure('RECORD_CORRUPT', 'state.json is damaged')),
      hasFailed: async () => false,
      atLeast: () => 'crash',
    },
  );
  await assert.rejects(chosen, { code: 'PLAN_CUT_LOST', message: /db of pair .* state\.json is damaged/ });
});

it('F5 what runs in earnest is found beside a machine that cannot be read; else the site says which one that is', async (t) => {
  const { standing } = await site(t, { up: 'web' });
  assert.deepEqual(await standing.inEarnest(SHOP), { machine: 'web' });
  const { standing: silent } = await site(t);
  const unread = 'whether db runs here cannot be read: state.json is damaged';
  assert.deepEqual(await silent.inEarnest(SHOP), { unread });
});

it('F5 S0.17 what runs of a machine that another site holds, and is being ended, is none that is up', async (t) => {
  const claim = { epoch: 3, siteId: 'south' };
  for (const right of [{ state: 'fenced', claim, lost: HELD.claim }, GIVEN] as const) {
    const { standing } = await site(t, { up: 'web', right });
    assert.equal(await standing.runs(standing.found('web')!), false, right.state);
    assert.equal(standing.isHeld(standing.found('web')!), false, right.state);
    assert.equal((await standing.held(SHOP)).get('web'), 'elsewhere');
  }
  const { standing } = await site(t, { up: 'web' });
  assert.equal(await standing.runs(standing.found('web')!), true);
  assert.equal(standing.isHeld(standing.found('web')!), true);
});

it('F5 where machines are held is known of what is offered, and not said of what cannot be read', async (t) => {
  const held = async (o: Parameters<typeof site>[1]) =>
    Object.fromEntries(await (await site(t, o)).standing.held(SHOP));
  assert.deepEqual(await held({ tenures: { db: HELD, web: OFFERED } }), { db: 'here', web: 'offered' });
  assert.deepEqual(await held({ tenures: { db: GIVEN } }), { db: 'elsewhere', web: 'unknown' });
  assert.deepEqual(await held({ tenures: { web: HELD }, isBroken: true }), { db: 'unread', web: 'here' });
  assert.deepEqual(await held({ up: 'web' }), { db: 'unread', web: 'here' });
});

it('F5 a hand-over that was left before the other site had heard of it goes on, with --planned as well', async (t) => {
  const { plans, runs } = await site(t, { tenures: { db: OFFERED, web: GIVEN } });
  const { run, job } = await plans.run('operator:a', 'shop', { mode: 'planned' });
  assert.equal(run.request.mode, 'cede');
  const { signal } = new AbortController();
  const about = { jobId: job.jobId, machineId: 'shop', args: { runId: run.runId } };
  const carriedOut = plans.handlers['plan.run'].run({ ...about, signal, progress: () => undefined });
  const told = await eventually(async () => runs.find(({ kind }) => kind === 'failover.cede'));
  assert.deepEqual([told.context.machineId, told.context.args.to], ['db', 'south']);
  told.finish({});
  const { verdict, steps } = (await carriedOut) as PlanRun;
  assert.deepEqual([verdict, steps[1]!.reason], ['done', 'it was so before the run came to it']);
});

/** Carries a run out to its end. */
async function carried(
  { plans }: Awaited<ReturnType<typeof site>>,
  { run, job }: StartedRun,
): Promise<PlanRun> {
  const { signal } = new AbortController();
  const about = { jobId: job.jobId, machineId: 'shop', args: { runId: run.runId } };
  const handler = plans.handlers['plan.run'];
  return (await handler.run({ ...about, signal, progress: () => undefined })) as PlanRun;
}

it('F5 of two machines of one name none is taken for the one that is meant: the check says so, and the step before any hook', async (t) => {
  for (const up of ['web', undefined]) {
    const made = await site(t, { isTwice: true, ...(up ? { up } : {}) });
    const hooks = { before: [{ program: 'open-firewall' }] };
    await made.store.put({ plan: 'shop', machines: { web: { hooks } } });
    const { document } = made.store.need('shop');
    const { findings } = await made.plans.check(document);
    assert.match(findings.map(({ message }) => message).join(), /^2 machines of this site are called web/);
    const asked = { mode: 'unplanned', confirmOtherSideDown: true } as const;
    const ended = await carried(made, await made.plans.run('operator:a', 'shop', asked));
    const [{ state, reason }] = ended.steps as [PlanRun['steps'][number]];
    assert.deepEqual(
      [ended.verdict, state, reason, made.hooked],
      ['failed', 'failed', '2 machines are called web', []],
    );
    await assert.rejects(made.plans.run('operator:a', 'shop', { mode: 'planned' }), {
      code: 'MACHINE_AMBIGUOUS',
    });
    const earnest = await made.standing.inEarnest(document);
    assert.deepEqual(
      earnest,
      up ? { machine: 'web' } : {},
      'any of them counts for what must not be disturbed',
    );
  }
});
