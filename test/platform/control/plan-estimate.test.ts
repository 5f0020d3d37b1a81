/** How long a plan is said to take, beside how long it takes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PlanDocument, PlanRun, RunPlanRequest } from '../../../src/api/index.ts';
import { MOST_AT_ONCE } from '../../../src/plan/index.ts';
import { lastFirst } from '../../support/last-first.ts';
import { resultOf } from '../../support/paired-sites.ts';
import { type ShopMachine, sitesWithShop } from '../../support/shop-sites.ts';

const SHOP = { params: { plan: 'shop' } };
/** A run takes no more than this many times what it was said to take, and no less than one such part of it: the host does other things as well. */
const FACTOR = 2;

/** One more than begin together. */
const MACHINES: readonly ShopMachine[] = Array.from({ length: MOST_AT_ONCE + 1 }, (_, index) => ({
  name: `m${index}`,
  address: `10.77.0.${2 + index}/24`,
  mac: `52:54:00:77:02:0${1 + index}`,
}));

describe('the estimate of a plan', { timeout: 300_000 }, () => {
  it('F5 is what the plan then takes, also where more machines than begin together are in one tier', async (context) => {
    const { home, awayApi } = await sitesWithShop(lastFirst(context), MACHINES);
    const document: PlanDocument = {
      plan: 'shop',
      machines: Object.fromEntries(MACHINES.map(({ name }) => [name, {}])),
    };
    await awayApi.call('plan.put', { body: document });
    await awayApi.call('failover.changeRules', { body: { mostRunning: MACHINES.length } });
    const carriedOut = async (body: RunPlanRequest): Promise<PlanRun> => {
      const { job } = await awayApi.call('plan.run', { ...SHOP, body });
      const run = (await resultOf(awayApi, job)) as PlanRun;
      assert.equal(run.verdict, 'done', JSON.stringify(run.steps));
      return run;
    };
    assert.equal((await awayApi.call('plan.estimate', SHOP)).totalMs, null);
    await carriedOut({ mode: 'test' });
    const { totalMs, machines } = await awayApi.call('plan.estimate', SHOP);
    const waiting = machines.filter(({ beginsAtMs }) => beginsAtMs !== 0);
    assert.equal(waiting.length, 1, 'one waits for a place');
    assert.equal(waiting[0]!.beginsAtMs, Math.min(...machines.map(({ upAtMs }) => upAtMs!)));

    await home.close();
    const { startedAtMs, endedAtMs, steps } = await carriedOut({
      mode: 'unplanned',
      confirmOtherSideDown: true,
    });
    const begun = steps.map(({ beganAtMs }) => beganAtMs!).sort((a, b) => a - b);
    const ended = Math.min(...steps.map((step) => step.endedAtMs!));
    assert.ok(begun.at(-1)! >= ended, 'the last one has waited for a place in the run as well');
    const tookMs = endedAtMs! - startedAtMs;
    context.diagnostic(`said ${totalMs} ms, took ${tookMs} ms`);
    assert.ok(tookMs < totalMs! * FACTOR && tookMs > totalMs! / FACTOR, `said ${totalMs}, took ${tookMs}`);
  });
});
