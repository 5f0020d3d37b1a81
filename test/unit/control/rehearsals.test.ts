/** Rehearsals that a site begins by itself: when they are begun, what hinders them, and what is told of them. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { PlanRun } from '../../../src/api/index.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { RehearsalStore } from '../../../src/control/plans/rehearsal-store.ts';
import { PlanRehearsals } from '../../../src/control/plans/rehearsals.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { libFailure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { lastFirst } from '../../support/last-first.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** 01:59 of a night. */
const EVENING_MS = Date.UTC(2026, 2, 3, 1, 59);

/** A site that rehearses two plans every night at two o'clock, as far as these parts of it go. */
async function site(context: CleanUp) {
  const t = lastFirst(context);
  const directory = await temporaryDirectory(t);
  const clock = new FakeClock(EVENING_MS);
  const standing = new Map<string, string>();
  const alerts = {
    raise: (key: string, _severity: string, failure: { code: string }) =>
      void standing.set(key, failure.code),
    clear: (key: string) => void standing.delete(key),
  };
  const world = {
    earnest: undefined as string | undefined,
    /** Why it cannot be read whether a machine of the plan `shop` runs. */
    unread: undefined as string | undefined,
    failovers: 0,
    /** What happens while the site looks. */
    duringLook: undefined as (() => Promise<void>) | undefined,
    refusal: undefined as string | undefined,
    /** The plan that is refused; all of them if undefined. */
    refused: undefined as string | undefined,
  };
  const openedStore = () =>
    PlanStore.open({ files: nodeFiles, clock, alerts, events: new EventHub() }, directory);
  const opened = async () => {
    const store = await openedStore();
    const rehearsals = await RehearsalStore.open(nodeFiles, directory);
    let looks = 0;
    const loop = new PlanRehearsals({
      ...{ store, rehearsals, clock, alerts, log: silentLog },
      begin: async (plan) => {
        if (world.refusal && (world.refused ?? plan) === plan)
          throw controlFailure('PLAN_TOO_LARGE', world.refusal);
        await store.addRun({
          ...{ runId: newId(systemClock, systemRandom), actor: 'site', request: { mode: 'test' } },
          jobId: newId(systemClock, systemRandom),
          ...{ document: store.need(plan).document, startedAtMs: clock.wallMs(), steps: [] },
        });
      },
      inEarnest: async ({ plan }) => {
        looks += 1;
        await world.duringLook?.();
        if (world.earnest) return { machine: world.earnest };
        return world.unread && plan === 'shop' ? { unread: world.unread } : {};
      },
      jobs: () => ({
        underWay: (kinds) =>
          (kinds.includes('plan.run')
            ? store.runs.flatMap(({ runId, endedAtMs, document }) =>
                endedAtMs === undefined ? [{ args: { runId }, machineId: document.plan }] : [],
              )
            : Array.from({ length: world.failovers })) as never,
      }),
    });
    /** All that follows from how things are has been done. */
    const settled = async () => {
      for (let round = 0; round < 3; round++) {
        const before = looks;
        loop.changed();
        await eventually(async () => (looks > before ? true : undefined));
      }
    };
    loop.begin();
    return { store, rehearsals, loop, settled };
  };
  let now = await opened();
  t.after(() => now.loop.close());
  for (const plan of ['shop', 'mail']) {
    await now.store.put({ plan, machines: { db: {} } });
  }
  const times = { kind: 'fixed', cron: '0 2 * * *', zone: 'UTC' } as const;
  const kept = { plan: 'shop', times, withinMs: 60 * MINUTE_MS, sinceMs: clock.wallMs() };
  await now.rehearsals.put(kept);
  return {
    ...{ clock, standing, world, kept },
    now: () => now,
    runs: () => now.store.runs.filter(({ request }) => request.mode === 'test'),
    end: async (verdict: NonNullable<PlanRun['verdict']>) => {
      const run = now.store.runs.find(({ endedAtMs }) => endedAtMs === undefined)!;
      await now.store.changeRun(run.runId, (left) => ({ ...left, verdict, endedAtMs: clock.wallMs() }));
      await now.settled();
    },
    /** So much later. */
    later: async (ms: number) => {
      clock.jumpWall(ms);
      await now.settled();
    },
    /** The process ends, and another one begins so much later; `anew`: of the plans that there were `mail` alone has been told again. */
    awayFor: async (ms: number, plans?: 'anew') => {
      await now.loop.close();
      if (plans === 'anew') {
        await rm(join(directory, 'plans.json'));
        await (await openedStore()).put({ plan: 'mail', machines: { db: {} } });
      }
      clock.jumpWall(ms);
      now = await opened();
      await now.settled();
    },
  };
}

/** Of two plans that are due the one that can be is rehearsed, and of the other it is said that it is not proven. */
async function onlyMailIsRehearsed({ later, runs, end, standing }: Awaited<ReturnType<typeof site>>) {
  await later(2 * MINUTE_MS);
  assert.deepEqual(
    runs().map(({ document }) => document.plan),
    ['mail'],
  );
  await end('done');
  await later(90 * MINUTE_MS);
  assert.deepEqual([...standing], [['plan-rehearsal:shop', 'PLAN_UNPROVEN']]);
}

describe('a site that rehearses plans', { timeout: 60_000 }, () => {
  it('F5 begins at its time, each night, and makes up once what it missed while it was away', async (t) => {
    const { runs, later, end, awayFor } = await site(t);
    await later(30_000);
    assert.equal(runs().length, 0);
    await later(MINUTE_MS);
    assert.equal(runs().length, 1);
    await later(MINUTE_MS);
    assert.equal(runs().length, 1);
    await end('done');
    await awayFor(4 * DAY_MS);
    assert.equal(runs().length, 2, 'four nights are one rehearsal');
    await end('done');
    await later(60 * MINUTE_MS);
    assert.equal(runs().length, 2);
    await later(DAY_MS);
    assert.equal(runs().length, 3);
  });

  it('F5 goes on by its timer alone, without anything that happens', async (t) => {
    const { clock, runs } = await site(t);
    await eventually(async () => {
      await clock.turn(MINUTE_MS);
      return runs().length === 1 ? true : undefined;
    });
    assert.ok(clock.wallMs() < EVENING_MS + 60 * MINUTE_MS);
  });

  it('F5 never begins beside a run, a failover, or machines of the plan that run in earnest', async (t) => {
    const { now, world, runs, later, standing, clock } = await site(t);
    const { store, settled, loop } = now();
    const runId = newId(systemClock, systemRandom);
    const { document } = store.need('mail');
    await store.addRun({
      ...{
        runId,
        actor: 'operator:a',
        request: { mode: 'unplanned' },
        document,
        startedAtMs: clock.wallMs(),
        steps: [],
      },
    });
    await later(2 * MINUTE_MS);
    assert.equal(runs().length, 0);
    const [view] = await loop.views();
    assert.deepEqual([view!.state, view!.reason], ['held', 'mail is being carried out']);
    world.failovers = 1;
    await store.changeRun(runId, (run) => ({ ...run, verdict: 'done', endedAtMs: clock.wallMs() }));
    await settled();
    assert.equal(runs().length, 0);
    world.earnest = 'db';
    world.failovers = 0;
    await later(2 * DAY_MS);
    assert.equal(runs().length, 0);
    assert.equal((await loop.views())[0]!.state, 'in-earnest');
    assert.equal(standing.size, 0, 'nobody misses it then');
    world.earnest = undefined;
    await settled();
    assert.equal(runs().length, 1);
  });

  it('F5 tells of a rehearsal that did not pass until one passes, and of one that is missing with what hinders it', async (t) => {
    const { now, world, standing, later, end, awayFor, runs } = await site(t);
    const key = 'plan-rehearsal:shop';
    await later(2 * MINUTE_MS);
    await end('partly');
    assert.equal(standing.get(key), 'PLAN_REHEARSAL_FAILED');
    await awayFor(1000);
    assert.equal(standing.get(key), 'PLAN_REHEARSAL_FAILED', 'still, for the next process');
    await later(DAY_MS);
    await end('done');
    assert.equal(standing.has(key), false);

    world.refusal = 'it has too many machines';
    await later(DAY_MS);
    assert.equal(standing.has(key), false);
    await later(61 * MINUTE_MS);
    assert.equal(standing.get(key), 'PLAN_UNPROVEN');
    assert.match((await now().loop.views())[0]!.reason!, /too many machines/);
    world.refusal = undefined;
    await now().settled();
    assert.equal(runs().length, 3);
    await end('done');
    assert.equal(standing.has(key), false);
  });

  it('F5 a plan that cannot begin hinders no other one, and why it cannot is told', async (t) => {
    const at = await site(t);
    const { now, world, kept, runs } = at;
    await now().rehearsals.put({ ...kept, plan: 'mail' });
    world.refusal = 'it has too many machines';
    world.refused = 'shop';
    await onlyMailIsRehearsed(at);
    const [shop, mail] = await now().loop.views();
    assert.deepEqual([shop!.state, shop!.reason], ['held', 'it has too many machines']);
    assert.equal(mail!.state, 'waiting');
    world.refusal = undefined;
    await now().settled();
    assert.equal(runs().length, 2);
  });

  it('F5 a machine of which it cannot be read whether it runs holds its own plan alone, which says so', async (t) => {
    const at = await site(t);
    const { now, world, kept } = at;
    await now().rehearsals.put({ ...kept, plan: 'mail' });
    world.unread = 'whether db runs here cannot be read: its record is damaged';
    await onlyMailIsRehearsed(at);
    const [shop] = await now().loop.views();
    assert.deepEqual([shop!.state, shop!.reason], ['held', world.unread]);
  });

  it('F5 nothing is said any more of a rehearsal that nobody wants, whenever its process is killed or looks', async (t) => {
    const { now, later, end, standing, awayFor, world, runs, kept } = await site(t);
    const yearly = { kind: 'fixed', cron: '0 3 1 1 *', zone: 'UTC' } as const;
    await now().rehearsals.put({ ...kept, plan: 'mail', times: yearly });
    await later(2 * MINUTE_MS);
    await end('failed');
    assert.equal(standing.size, 1);
    // Killed before the alert was cleared.
    await now().rehearsals.remove('shop');
    await awayFor(1000);
    assert.equal(standing.size, 0);
    await now().rehearsals.put(kept);
    await now().settled();
    assert.equal(standing.size, 1);
    world.duringLook = async () => {
      world.duringLook = undefined;
      await now().rehearsals.remove('shop');
      now().loop.left('shop');
    };
    await later(DAY_MS);
    assert.deepEqual([standing.size, runs().length], [0, 1]);
  });

  it('F5 a site that cannot look at its rehearsals says so until it can', async (t) => {
    const { now, standing, world } = await site(t);
    world.duringLook = () => Promise.reject(libFailure('DISK_FULL', 'no space'));
    await now().settled();
    await eventually(async () => (standing.get('rehearsals') === 'DISK_FULL' ? true : undefined));
    world.duringLook = undefined;
    await now().settled();
    await eventually(async () => (standing.size === 0 ? true : undefined));
  });

  it('F5 what is rehearsed is shown also where what came of it cannot be recorded, of which the site tells', async (t) => {
    const { now, later, standing } = await site(t);
    now().rehearsals.settle = () => Promise.reject(libFailure('DISK_FULL', 'no space'));
    await later(2 * MINUTE_MS);
    await eventually(async () => (standing.get('rehearsals') === 'DISK_FULL' ? true : undefined));
    assert.deepEqual(
      (await now().loop.views()).map(({ plan }) => plan),
      ['shop'],
    );
  });

  it('F5 a plan that the site has lost is rehearsed again when it has been told it again; meanwhile that is said', async (t) => {
    const { now, awayFor, later, runs, end, standing, kept } = await site(t);
    await now().rehearsals.put({ ...kept, plan: 'mail' });
    await later(2 * MINUTE_MS);
    await end('failed');
    await end('done');
    assert.deepEqual([...standing.values()], ['PLAN_REHEARSAL_FAILED']);
    await awayFor(DAY_MS, 'anew');
    assert.equal(runs().length, 3);
    await end('done');
    const [shop] = await now().loop.views();
    assert.deepEqual([shop!.plan, shop!.state, shop!.reason], ['shop', 'held', 'this site has no plan shop']);
    assert.deepEqual([...standing.values()], ['PLAN_REHEARSAL_FAILED'], 'no other one has passed');
    await now().store.put({ plan: 'shop', machines: { db: {} } });
    await now().settled();
    assert.equal(runs().length, 4);
    await end('done');
    assert.equal(standing.size, 0);
  });

  it('F5 a plan that is removed is rehearsed no more', async (t) => {
    const { now, later, runs, standing, end } = await site(t);
    await later(2 * MINUTE_MS);
    await end('failed');
    assert.equal(standing.size, 1);
    await now().store.remove('shop');
    now().loop.changed();
    await eventually(async () => (now().rehearsals.all.length + standing.size === 0 ? true : undefined));
    assert.equal(runs().length, 1);
  });
});
