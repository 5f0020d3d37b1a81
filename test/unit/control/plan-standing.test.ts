/** One machine of a plan of which it cannot be read how it stands hinders no other one. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { RecoveryPlans } from '../../../src/control/acts/plan-acts.ts';
import { PlanStanding } from '../../../src/control/acts/plan-standing.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { bootClock } from '../../../src/lib/boot-clock.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { jobsIn } from '../../support/jobs-by-hand.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const SHOP = { plan: 'shop', machines: { db: {}, web: {} } };

/** A site with replicas of both machines of a plan. Of `db` the state of a branch cannot be read; `up` runs. */
async function site(t: CleanUp, o: { readonly up?: string } = {}) {
  const events = new EventHub();
  const alerts = { raise: () => undefined, clear: () => undefined };
  const store = await PlanStore.open(
    { files: nodeFiles, clock: systemClock, alerts, events },
    await temporaryDirectory(t),
  );
  await store.put(SHOP);
  const { open } = await jobsIn(t);
  const { jobs, close } = open();
  t.after(close);
  const checked: string[] = [];
  const machines = Object.keys(SHOP.machines).map((name) => ({
    ...{ machineId: name, name, home: undefined },
    replica: { newest: { statement: { pointId: name } } },
  }));
  const tools = {
    ...{ store, events, files: nodeFiles, log: silentLog, siteName: 'north', clock: systemClock, bootClock },
    ...{ random: systemRandom, jobs: () => jobs, inventory: { all: () => machines } },
    failovers: {
      list: async (machine: string) => {
        if (machine === 'db') throw libFailure('RECORD_CORRUPT', 'state.json is damaged');
        return machine === o.up ? [{ purpose: 'failover', running: true, state: 'probed' }] : [];
      },
      checkTogether: async (members: readonly { pointId: string }[]) =>
        void checked.push(...members.map(({ pointId }) => pointId)),
    },
  } as unknown as ConstructorParameters<typeof RecoveryPlans>[0];
  return { plans: new RecoveryPlans(tools), standing: new PlanStanding(tools), checked, store };
}

it('F5 a plan is carried out without the other site also where one of its machines cannot be read', async (t) => {
  const { plans, checked, store } = await site(t);
  const { run } = await plans.run('operator:a', 'shop', { mode: 'unplanned', confirmOtherSideDown: true });
  assert.equal(store.needRun(run.runId).endedAtMs, undefined);
  assert.deepEqual(checked, ['web']);
});

it('F5 what runs in earnest is found beside a machine that cannot be read; else the site says which one that is', async (t) => {
  const { standing } = await site(t, { up: 'web' });
  assert.deepEqual(await standing.inEarnest(SHOP), { machine: 'web' });
  const { standing: silent } = await site(t);
  const unread = 'whether db runs here cannot be read: state.json is damaged';
  assert.deepEqual(await silent.inEarnest(SHOP), { unread });
});
