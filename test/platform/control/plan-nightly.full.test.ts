/** Plans that a site rehearses by itself: over its own end, and never in the way of the day itself. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PlanDocument, PlanRun } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { TestApi } from '../../support/api.ts';
import { eventually } from '../../support/eventually.ts';
import { killablePair } from '../../support/killable-site.ts';
import { resultOf } from '../../support/paired-sites.ts';
import { addShop, SHOP_MACHINES } from '../../support/shop-sites.ts';

const SHOP = { params: { plan: 'shop' } };
const DAY_MS = 86_400_000;

/** The newest rehearsal, as soon as it is so. */
function rehearsal(api: TestApi, isSo: (run: PlanRun) => boolean): Promise<PlanRun> {
  return eventually(async () => {
    const newest = (await api.call('plan.runs')).find(({ request }) => request.mode === 'test');
    return newest && isSo(newest) ? newest : undefined;
  });
}

describe('a plan that a site rehearses by itself', { timeout: 300_000 }, () => {
  it('F5 is begun at its time, ended by the next process if the site is killed, told of if it fails, and makes room for the day itself', async (context) => {
    const { directory, home, away, homeApi, awayApi } = await killablePair(context);
    await addShop({ directory, homeApi }, SHOP_MACHINES);
    const document: PlanDocument = {
      plan: 'shop',
      machines: { db: { approval: 'Is the licence server up?' }, web: { tier: 2 } },
    };
    await awayApi.call('plan.put', { body: document });
    const times = { kind: 'interval', everyMs: DAY_MS } as const;
    await awayApi.call('plan.rehearse', { ...SHOP, body: { times } });
    // Nobody has asked for it, and nobody is asked.
    const begun = await rehearsal(awayApi, ({ steps }) => steps[0]!.jobId !== undefined);
    assert.equal(begun.actor, 'site');
    await away.end('SIGKILL');

    const second = await away.serve();
    const done = await rehearsal(second, ({ endedAtMs }) => endedAtMs !== undefined);
    assert.deepEqual([done.runId, done.verdict], [begun.runId, 'done'], JSON.stringify(done.steps));
    const [view] = await second.call('plan.rehearsals');
    assert.deepEqual(
      [view!.state, view!.nextAtMs, view!.lastPassedAtMs, view!.isFailing, view!.isOverdue],
      ['waiting', done.startedAtMs + DAY_MS, done.startedAtMs, false, false],
    );
    assert.equal((await second.call('plan.runs')).length, 1);
    // The run has ended before the job that its report is made of.
    await eventually(async () => {
      const { reports } = await second.call('report.list', { query: {} });
      return reports.some(({ kind, about }) => kind === 'plan' && about === 'shop') ? true : undefined;
    });

    // One that does not pass is told of until one passes, whoever has begun them.
    const gates = [{ kind: 'serial', pattern: 'never said', limitMs: 1000 }] as const;
    await second.call('plan.put', { body: { ...document, machines: { db: { gates: [...gates] } } } });
    const failing = await second.call('plan.run', { ...SHOP, body: { mode: 'test' } });
    assert.equal(((await resultOf(second, failing.job)) as PlanRun).verdict, 'failed');
    const standing = async () =>
      (await second.call('alert.list')).find(({ code }) => code === 'PLAN_REHEARSAL_FAILED');
    await eventually(standing);
    await second.call('plan.put', { body: document });
    const { run, job } = await second.call('plan.run', { ...SHOP, body: { mode: 'test' } });
    await eventually(async () => {
      const { steps } = await second.call('plan.showRun', { params: { run: run.runId } });
      return steps[0]!.state === 'asking' ? true : undefined;
    });
    // A person has begun this one, and is asked.
    await second.call('plan.approve', { params: { run: run.runId }, body: { machine: 'db' } });
    assert.equal(((await resultOf(second, job)) as PlanRun).verdict, 'done');
    await eventually(async () => ((await standing()) ? undefined : true));

    assert.deepEqual(await second.call('plan.rehearseNoMore', SHOP), []);
    await second.call('plan.rehearse', { ...SHOP, body: { times: { kind: 'interval', everyMs: 60_000 } } });
    // The day itself: the rehearsal that is under way makes room, and none begins beside what runs.
    await home.end('SIGKILL');
    const hindering = await rehearsal(
      second,
      ({ actor, steps, endedAtMs }) =>
        actor === 'site' && endedAtMs === undefined && steps[0]!.state === 'starting',
    );
    const body = { mode: 'unplanned', confirmOtherSideDown: true } as const;
    const earnest = await second.call('plan.run', { ...SHOP, body });
    const left = await second.call('plan.showRun', { params: { run: hindering.runId } });
    assert.equal(left.verdict, 'cancelled');
    await eventually(async () => {
      const { steps } = await second.call('plan.showRun', { params: { run: earnest.run.runId } });
      return steps[0]!.state === 'asking' ? true : undefined;
    });
    await second.call('plan.approve', { params: { run: earnest.run.runId }, body: { machine: 'db' } });
    const up = (await resultOf(second, earnest.job)) as PlanRun;
    assert.equal(up.verdict, 'done', JSON.stringify(up.steps));
    const isUp = up.steps.map(({ machine }) => machine);
    const state = await eventually(async () => {
      const [now] = await second.call('plan.rehearsals');
      return now!.state === 'in-earnest' && now!.nextAtMs! < systemClock.wallMs() ? now : undefined;
    });
    assert.match(state.reason!, new RegExp(`^${isUp[0]} runs here`));
    const newest = await rehearsal(second, () => true);
    assert.equal(newest.runId, hindering.runId, 'none has begun since');
  });
});
