/** Recovery plans carried out by real sites: in order, past what does not come up, over the end of the site that carries them out. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { BranchView, PlanDocument, PlanRun, PlanView, RunPlanRequest } from '../../../src/api/index.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { TestApi } from '../../support/api.ts';
import { ended, pairedSites, resultOf, someonesMachine } from '../../support/paired-sites.ts';
import { agreeingGate, sitesWithMachines } from '../../support/plan-sites.ts';
import type { TestSite } from '../../support/served-sites.ts';
import { BY_HAND, verifiedCopy } from '../../support/site-of-box.ts';

const SHOP = { params: { plan: 'shop' } };
const UNPLANNED: RunPlanRequest = { mode: 'unplanned', confirmOtherSideDown: true };

/** Carries a plan out to its end. */
async function carriedOut(api: TestApi, body: RunPlanRequest): Promise<PlanRun> {
  const { job } = await api.call('plan.run', { ...SHOP, body });
  return (await resultOf(api, job)) as PlanRun;
}

/** Stores a plan at a site that is not served. */
async function changedApart(dataDirectory: string, document: PlanDocument): Promise<void> {
  const alerts = { raise: () => undefined, clear: () => undefined };
  const events = new EventHub();
  const store = await PlanStore.open({ files: nodeFiles, clock: systemClock, alerts, events }, dataDirectory);
  await store.put(document);
}

/** The run when a machine of it has come so far. */
function when(site: TestSite, api: TestApi, runId: string, machine: string, state: string): Promise<PlanRun> {
  return site.until(async () => {
    const run = await api.call('plan.showRun', { params: { run: runId } });
    return run.steps.find((step) => step.machine === machine)!.state === state ? run : undefined;
  });
}

/** Branches tell nobody how far they are: they are asked until it is so. */
async function untilBranches(
  api: TestApi,
  machine: string,
  isSo: (branches: readonly BranchView[]) => boolean,
): Promise<void> {
  while (!isSo(await api.call('failover.list', { params: { machine } })));
}

/** Says yes as soon as it is asked. */
async function approved(api: TestApi, runId: string, machine: string): Promise<void> {
  for (;;) {
    try {
      await api.call('plan.approve', { params: { run: runId }, body: { machine } });
      return;
    } catch (error) {
      if ((error as { code?: string }).code !== 'PLAN_NOT_ASKED') throw error;
    }
  }
}

function statesOf({ steps }: PlanRun) {
  return Object.fromEntries(steps.map(({ machine, state }) => [machine, state]));
}

describe('a recovery plan', { timeout: 300_000 }, () => {
  it('F5 is at both sites as soon as it is put at one, and what both have changed without each other is overwritten at neither', async (context) => {
    const { home, homeApi, away, awayApi } = await pairedSites(context);
    const shop = (description: string): PlanDocument => ({ plan: 'shop', description, machines: { db: {} } });
    const when = (site: TestSite, api: TestApi, isSo: (plan: PlanView | undefined) => boolean) =>
      site.until(async () => {
        const plan = (await api.call('plan.list', {})).find(({ document }) => document.plan === 'shop');
        return isSo(plan) ? { plan } : undefined;
      });
    await homeApi.call('plan.put', { body: shop('one') });
    await when(away, awayApi, (plan) => plan?.document.description === 'one');
    await away.close();
    await homeApi.call('plan.put', { body: shop('two') });
    const again = await away.serve();
    await when(away, again, (plan) => plan?.document.description === 'two' && plan.counter === 2);

    // Each is changed while the sites do not see each other.
    await away.close();
    await homeApi.call('plan.put', { body: shop('here') });
    await changedApart(away.dataDirectory, shop('there'));
    const third = await away.serve();
    const { plan: here } = await when(home, homeApi, (plan) => plan?.conflict !== undefined);
    const { plan: there } = await when(away, third, (plan) => plan?.conflict !== undefined);
    assert.deepEqual([here!.document.description, there!.document.description], ['here', 'there']);
    assert.deepEqual(here!.conflict!.changes, ['description']);
    const alerts = await third.call('alert.list');
    assert.ok(alerts.some(({ code }) => code === 'PLAN_CHANGED_TWICE'));

    await third.call('plan.put', { body: shop('settled') });
    await when(home, homeApi, (plan) => plan?.document.description === 'settled' && !plan.conflict);
    await third.call('plan.remove', SHOP);
    await when(home, homeApi, (plan) => plan === undefined);
    const { entries } = await homeApi.call('audit.list');
    assert.ok(entries.some(({ act, actor }) => act === 'plan.told' && actor.startsWith('peer:')));
  });

  it('F5 brings machines up in order, past what does not come up, and asks a person where it was told to', async (context) => {
    const { home, away, awayApi } = await sitesWithMachines(context, ['db', 'app', 'web']);
    const document: PlanDocument = {
      plan: 'shop',
      machines: {
        db: {},
        app: { tier: 2, approval: 'Is the licence server up?' },
        web: { tier: 3 },
        mail: { tier: 3 },
        list: { tier: 3, after: ['mail'] },
      },
    };
    const checked = await awayApi.call('plan.check', { body: document });
    assert.deepEqual(checked.order, [['db'], ['app'], ['web', 'mail'], ['list']]);
    assert.equal(checked.findings.filter(({ severity }) => severity === 'error').length, 2);
    assert.deepEqual(await awayApi.call('plan.list', {}), []);
    await assert.rejects(awayApi.call('plan.run', { ...SHOP, body: UNPLANNED }), { code: 'PLAN_UNKNOWN' });
    const cyclic = { ...document, machines: { db: { after: ['app'] }, app: { after: ['db'] } } };
    await assert.rejects(awayApi.call('plan.put', { body: cyclic }), { code: 'PLAN_INVALID' });
    await awayApi.call('plan.put', { body: document });
    const { changes } = await awayApi.call('plan.check', { body: { ...document, description: 'all' } });
    assert.deepEqual(changes, ['description']);

    await home.close();
    await assert.rejects(awayApi.call('plan.run', { ...SHOP, body: { mode: 'unplanned' } }), {
      code: 'PLAN_UNCONFIRMED',
    });
    const { run, job } = await awayApi.call('plan.run', { ...SHOP, body: UNPLANNED });
    const { runId } = run;
    await assert.rejects(awayApi.call('plan.run', { ...SHOP, body: UNPLANNED }), {
      code: 'PLAN_RUNS_ALREADY',
    });
    await assert.rejects(awayApi.call('plan.approve', { params: { run: runId }, body: { machine: 'web' } }), {
      code: 'PLAN_NOT_ASKED',
    });
    const asking = await when(away, awayApi, runId, 'app', 'asking');
    assert.deepEqual(statesOf(asking), {
      ...{ db: 'done', app: 'asking', web: 'waiting', mail: 'waiting', list: 'waiting' },
    });

    // What is asked outlives the site process.
    await away.close();
    const again = await away.serve();
    assert.deepEqual(
      statesOf(await again.call('plan.showRun', { params: { run: runId } })),
      statesOf(asking),
    );
    // The run is taken up when the site serves; until then nothing is asked.
    await approved(again, runId, 'app');
    const done = (await resultOf(again, job)) as PlanRun;
    assert.equal(done.verdict, 'partly');
    assert.deepEqual(statesOf(done), {
      ...{ db: 'done', app: 'done', web: 'done', mail: 'failed', list: 'blocked' },
    });
    const step = (name: string) => done.steps.find(({ machine }) => machine === name)!;
    assert.ok(
      step('db').endedAtMs! <= step('app').beganAtMs! && step('app').endedAtMs! <= step('web').beganAtMs!,
    );
    assert.match(step('app').approvedBy!, /^operator:/);
    assert.match(step('mail').reason!, /mail/);
    for (const machine of ['db', 'app', 'web']) {
      const [branch] = await again.call('failover.list', { params: { machine } });
      assert.deepEqual([branch!.branchId, branch!.running], [step(machine).branchId, true]);
    }
    const { entries } = await again.call('audit.list');
    assert.ok(entries.some(({ act, actor }) => act === 'failover.start' && actor === `plan:${runId}`));
  });

  it('F5 S0.28 brings the machines of a group up from one cut, and the rest of them from the cut of those that are up', async (context) => {
    const { home, homeApi, away, awayApi } = await sitesWithMachines(context, ['db', 'web']);
    for (const machine of ['db', 'web']) await homeApi.call('vm.start', { params: { machine } });
    const group = { params: { group: 'books' } };
    await homeApi.call('group.create', { body: { name: 'books', members: ['db', 'web'], limitMs: 10_000 } });
    const cut = async () => {
      const { cutId } = await homeApi.call('group.cut', { ...group, body: {} });
      return away.until(async () => {
        const groups = await awayApi.call('group.list');
        return groups.some(({ newest }) => newest?.cutId === cutId) ? cutId : undefined;
      });
    };
    const first = await cut();
    // One of them has a newer point of its own.
    await verifiedCopy(homeApi, { params: { machine: 'db' } });
    const document: PlanDocument = {
      plan: 'shop',
      oneCut: ['books'],
      points: { provenOnly: true },
      machines: { db: {}, web: { tier: 2, hooks: { before: [{ program: 'not-there' }] } } },
    };
    await awayApi.call('plan.put', { body: document });
    const missing = { ...document, plan: 'other', oneCut: ['none'] };
    await awayApi.call('plan.put', { body: missing });
    await assert.rejects(awayApi.call('plan.run', { params: { plan: 'other' }, body: UNPLANNED }), {
      code: 'GROUP_UNKNOWN',
    });
    const second = await cut();
    assert.notEqual(second, first);
    await home.close();
    const begun = await carriedOut(awayApi, UNPLANNED);
    assert.deepEqual(statesOf(begun), { db: 'done', web: 'failed' }, JSON.stringify(begun.steps));
    assert.deepEqual(
      begun.steps.map(({ cutId }) => cutId),
      [second, second],
    );
    await awayApi.call('plan.put', { body: { ...document, machines: { db: {}, web: { tier: 2 } } } });
    const done = await carriedOut(awayApi, UNPLANNED);
    assert.equal(done.verdict, 'done', JSON.stringify(done.steps));
    const points = (await awayApi.call('group.points', group)).find(({ cutId }) => cutId === second)!.members;
    for (const { name, pointId } of points) {
      const [branch] = await awayApi.call('failover.list', { params: { machine: name } });
      assert.equal(branch!.pointId, pointId, name);
    }
  });

  it('F5 comes up from the points that the plan prefers, and one machine from those that are said of it', async (context) => {
    const { home, homeApi, away, awayApi } = await sitesWithMachines(context, ['db', 'web'], 'office');
    const gates = [await agreeingGate(away.dataDirectory)];
    const document: PlanDocument = {
      plan: 'shop',
      points: { provenWorthMs: 0 },
      machines: { db: { gates }, web: { gates, points: { provenOnly: true } } },
    };
    await awayApi.call('plan.put', { body: document });
    const sequences = ({ steps }: PlanRun) => steps.map(({ sequence }) => sequence);
    // Nothing is proven yet: on the day itself the front end would not come up, and a rehearsal asks no proof.
    const tested = await carriedOut(awayApi, { mode: 'test' });
    assert.deepEqual([tested.verdict, ...sequences(tested)], ['done', 1, 1], JSON.stringify(tested.steps));
    for (const machine of ['db', 'web']) await verifiedCopy(homeApi, { params: { machine } });
    await home.close();
    const done = await carriedOut(awayApi, UNPLANNED);
    assert.deepEqual([done.verdict, ...sequences(done)], ['done', 2, 1], JSON.stringify(done.steps));
  });

  it('F5 hands machines over, those that others need last, and takes them over in their order', async (context) => {
    const { home, homeApi, awayApi } = await sitesWithMachines(context, ['db', 'web']);
    const document: PlanDocument = { plan: 'shop', machines: { db: {}, web: { tier: 2 } } };
    for (const api of [homeApi, awayApi]) await api.call('plan.put', { body: document });
    const taking = await awayApi.call('plan.run', { ...SHOP, body: { mode: 'take', waitMs: 120_000 } });
    const ceded = await carriedOut(homeApi, { mode: 'cede' });
    assert.equal(ceded.verdict, 'done', JSON.stringify(ceded.steps));
    const [db, web] = ceded.steps;
    assert.ok(web!.endedAtMs! <= db!.beganAtMs!, 'the web front end goes first');
    const taken = (await resultOf(awayApi, taking.job)) as PlanRun;
    assert.equal(taken.verdict, 'done', JSON.stringify(taken.steps));
    assert.ok(taken.steps[0]!.endedAtMs! <= taken.steps[1]!.beganAtMs!, 'the database comes first');
    // It hears of that with its next word to the other site.
    await home.until(async () => {
      const view = await homeApi.call('vm.show', { params: { machine: 'db' } });
      return view.protected!.heldBy!.how === 'handed-over' ? true : undefined;
    });
  });

  it('F5 is ended by a person: what has begun is ended, and what runs stays', async (context) => {
    const { away, awayApi } = await sitesWithMachines(context, ['db', 'web']);
    const document: PlanDocument = {
      plan: 'shop',
      machines: { db: {}, web: { tier: 2, gates: [{ kind: 'serial', pattern: 'never said' }] } },
    };
    await awayApi.call('plan.put', { body: document });
    const { run, job } = await awayApi.call('plan.run', { ...SHOP, body: UNPLANNED });
    await when(away, awayApi, run.runId, 'web', 'starting');
    await awayApi.call('job.cancel', { params: { job: job.jobId } });
    assert.equal((await ended(awayApi, job)).state, 'cancelled');
    const after = await awayApi.call('plan.showRun', { params: { run: run.runId } });
    assert.deepEqual([after.verdict, after.steps[0]!.state], ['cancelled', 'done']);
    await untilBranches(awayApi, 'db', ([branch]) => branch!.running);
    await untilBranches(awayApi, 'web', (branches) => branches.every(({ running }) => !running));
    await awayApi.call('plan.remove', SHOP);
    assert.deepEqual(await awayApi.call('plan.list', {}), []);
  });

  it('F5 goes on after the site has ended while a guest was booting, and what is up already is up when it is carried out once more', async (context) => {
    const { t, directory, home, homeApi, away, awayApi } = await pairedSites(context);
    for (const name of ['db', 'web']) {
      const { attach, lab } = await someonesMachine(t, directory, name);
      await homeApi.call('vm.add', { body: { attach } });
      const of = { params: { machine: name } };
      await homeApi.call('vm.protect', { ...of, body: BY_HAND });
      await verifiedCopy(homeApi, of);
      await lab.stop();
    }
    await home.close();
    const gates = [{ kind: 'agent' }, { kind: 'serial', pattern: '^lab guest up' }] as const;
    const document: PlanDocument = {
      plan: 'shop',
      machines: { db: { gates: [...gates] }, web: { tier: 2, gates: [...gates] } },
    };
    await awayApi.call('plan.put', { body: document });
    const tested = await carriedOut(awayApi, { mode: 'test' });
    assert.equal(tested.verdict, 'done', JSON.stringify(tested.steps));
    const { totalMs, machines } = await awayApi.call('plan.estimate', SHOP);
    assert.ok(totalMs! > 0 && totalMs === machines.at(-1)!.upAtMs, JSON.stringify(machines));

    const { run, job } = await awayApi.call('plan.run', { ...SHOP, body: UNPLANNED });
    await when(away, awayApi, run.runId, 'db', 'starting');
    await untilBranches(awayApi, 'db', (branches) => branches.some(({ state }) => state === 'started'));
    await away.close();
    const again = await away.serve();
    const done = (await resultOf(again, job)) as PlanRun;
    assert.equal(done.verdict, 'done', JSON.stringify(done.steps));
    for (const machine of ['db', 'web']) {
      const branches = await again.call('failover.list', { params: { machine } });
      assert.equal(branches.filter(({ running }) => running).length, 1, machine);
    }
    const { entries } = await again.call('audit.list');
    const acts = entries.filter(({ actor }) => actor === `plan:${run.runId}`).map(({ act }) => act);
    assert.ok(!acts.includes('failover.stop'), acts.join());

    // What is up already is up: the same plan can be carried out once more.
    const processes = async () =>
      (await again.call('failover.list', { params: { machine: 'db' } })).map(({ processId }) => processId);
    const before = await processes();
    const second = await carriedOut(again, UNPLANNED);
    assert.equal(second.verdict, 'done', JSON.stringify(second.steps));
    assert.match(second.steps[0]!.reason!, /it was so before/);
    assert.deepEqual(await processes(), before);
    context.diagnostic(
      `estimated ${totalMs} ms; took ${done.endedAtMs! - done.startedAtMs} ms with the end of the site in the middle`,
    );
  });
});
