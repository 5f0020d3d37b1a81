import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { GroupCutView, GroupPointView, GroupView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { asking } from './asking.ts';

const ID = newId(systemClock, systemRandom);
const GROUP: GroupView = {
  ...{ groupId: ID, name: 'shop', role: 'protected', targetSiteId: ID, targetName: 'south' },
  members: [{ machineId: ID, name: 'web' }],
  every: { crash: 300_000 },
  limitMs: 1000,
};
const POINT: GroupPointView = {
  ...{
    cutId: ID,
    groupId: ID,
    groupName: 'shop',
    copyType: 'crash',
    consistency: 'crash',
    cutAtMs: 0,
    pauseMs: 23,
  },
  members: [{ machineId: ID, name: 'web', pointId: ID, sequence: 7, receivedBytes: 1, keptFor: ['group'] }],
};

it('S0.28 a group is set up and changed with what is named, and nothing else', async (t) => {
  const { ask, site } = await asking(t, GROUP);
  const made = await ask(
    'group',
    'create',
    'shop',
    'web',
    'db',
    '--every',
    '5m',
    '--type',
    'app',
    '--limit',
    '500ms',
  );
  assert.deepEqual(
    [made.exitCode, made.asked, made.sent],
    [0, 'POST /v1/groups', { name: 'shop', members: ['web', 'db'], every: { app: 300_000 }, limitMs: 500 }],
  );
  assert.match(made.output, /crash every 5/);
  assert.deepEqual((await ask('group', 'create', 'shop', 'web')).sent, { name: 'shop', members: ['web'] });
  const changed = await ask('group', 'change', 'shop', '--members', 'web, db', '--every', 'off');
  assert.deepEqual(
    [changed.asked, changed.sent],
    ['PATCH /v1/groups/shop', { members: ['web', 'db'], every: {} }],
  );
  const before = site.asked.length;
  assert.equal((await ask('group', 'change', 'shop')).exitCode, 2);
  assert.equal(site.asked.length, before);
});

it('S0.28 a cut that was none of the whole group has exit code 1 and says why', async (t) => {
  const cut: GroupCutView = {
    ...{ cutId: ID, copyType: 'crash', atMs: 0, pauseMs: 23, together: true },
    members: [{ machineId: ID, name: 'web', pointId: ID }],
  };
  const whole = await asking(t, cut);
  const good = await whole.ask('group', 'cut', 'shop');
  assert.deepEqual([good.exitCode, good.asked], [0, 'POST /v1/groups/shop/cuts']);
  assert.match(good.output, /One instant of all machines/);
  const reason = 'no cut of the whole group: db: it does not run';
  const apart = await (await asking(t, { ...cut, together: false, reason })).ask('group', 'cut', 'shop');
  assert.equal(apart.exitCode, 1);
  assert.match(apart.output, /it does not run/);
});

it('S0.28 group points are listed with the points of their machines', async (t) => {
  const { ask } = await asking(t, [POINT]);
  assert.match((await ask('group', 'points', 'shop')).output, /web 7/);
  const { ask: askView } = await asking(t, { ...GROUP, role: 'replica', newest: POINT, points: 1 });
  assert.match((await askView('group', 'show', 'shop')).output, /whole cuts +1/);
});

it('S0.28 a failover takes the point of a group by its cut', async (t) => {
  const { ask, site } = await asking(t, {
    ...{ jobId: ID, kind: 'failover.test', state: 'queued', machineId: ID, args: {}, actor: 'x' },
    ...{ createdAtMs: 0, progress: {} },
  });
  const latest = await ask('failover', 'test', 'web', '--group-point', 'latest', '--no-wait');
  assert.deepEqual(latest.sent, { point: 'latest-group' });
  assert.deepEqual((await ask('failover', 'test', 'web', '--group-point', ID, '--no-wait')).sent, {
    point: ID,
  });
  const before = site.asked.length;
  assert.equal((await ask('failover', 'test', 'web', '--group-point', ID, '--point', '7')).exitCode, 2);
  assert.equal(site.asked.length, before);
});

it('S0.28 of a group of which one machine could not be begun the others are told with it, and the exit code is 1', async (t) => {
  const job = {
    ...{ jobId: ID, kind: 'failover.start', state: 'queued', machineId: ID, args: {}, actor: 'x' },
    ...{ createdAtMs: 0, progress: {} },
  };
  const failure = {
    ...{ code: 'SITE_DATABASE_FULL', kind: 'environment', retry: 'later', message: 'no space is left' },
    ...{ hint: 'Make room.', context: {} },
  };
  const jobs = [{ machineId: ID, name: 'web', job }];
  const begun = { cutId: ID, jobs, failures: [{ machineId: ID, name: 'db', failure }] };
  const { ask } = await asking(t, begun);
  const asked = ['group', 'failover', 'shop', '--confirm-other-side-down', '--no-wait'];
  const told = await ask(...asked);
  assert.equal(told.exitCode, 1);
  assert.match(told.output, new RegExp(`web +queued +${ID}`));
  assert.match(told.output, /db was not begun: no space is left\n +Make room\./);
  assert.match(told.output, new RegExp(`failover start\\|test MACHINE --group-point ${ID}`));
  assert.deepEqual(JSON.parse((await ask(...asked, '--json')).output), begun);
  assert.equal((await (await asking(t, { cutId: ID, jobs })).ask(...asked)).exitCode, 0);
});
