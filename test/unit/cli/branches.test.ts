import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { BranchView, FailoverRules, JobView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { asking } from './asking.ts';

const ID = newId(systemClock, systemRandom);
const JOB: JobView = {
  ...{ jobId: ID, kind: 'failover.test', state: 'queued', machineId: ID, args: {}, actor: 'operator' },
  ...{ createdAtMs: 0, progress: {} },
};
const BRANCH: BranchView = {
  ...{ branchId: ID, name: 'friday', machineId: ID, pointId: ID, sequence: 17, purpose: 'test' },
  ...{ createdAtMs: 0, state: 'probed', running: true, processId: 5, ownBytes: 3 * 2 ** 20, limits: {} },
  paused: false,
  adopted: false,
};

it('S0.23 the limits of a test go to the site as they were meant', async (t) => {
  const { ask } = await asking(t, JOB);
  const limits = ['--memory', '1G', '--cpus', '2', '--cpu-limit', '150%', '--cpu-weight', '50'];
  const ran = await ask(
    ...['failover', 'test', 'web', '--point', '17', '--name', 'friday', '--keep', '--no-wait', '--for', '8h'],
    ...[...limits, '--disk-rate', '20M/s', '--disk-iops', '500'],
  );
  assert.deepEqual([ran.exitCode, ran.asked], [0, 'POST /v1/machines/web/failover-tests']);
  assert.deepEqual(ran.sent, {
    ...{ point: '17', name: 'friday', keep: true, lifetimeMs: 28_800_000 },
    limits: {
      ...{ memoryBytes: 2 ** 30, cpus: 2, cpuPercent: 150, cpuWeight: 50 },
      ...{ diskBytesPerSecond: 20 * 2 ** 20, diskOperationsPerSecond: 500 },
    },
  });
  for (const wrong of [
    ['--disk-rate', 'unlimited'],
    ['--cpus', '0'],
    ['--name', '17'],
  ]) {
    assert.equal((await ask('failover', 'test', 'web', '--no-wait', ...wrong)).exitCode, 2, wrong.join(' '));
  }
});

it('S0.23 S0.24 a branch is stopped and led forward by the name that it has', async (t) => {
  const { ask } = await asking(t, JOB);
  const stop = await ask('failover', 'stop', 'web', 'friday', '--now', '--no-wait');
  assert.deepEqual([stop.asked, stop.sent], ['POST /v1/machines/web/branches/friday/stop', { graceMs: 0 }]);
  const forward = ['failover', 'forward', 'web', 'friday', '--no-wait'];
  const step = await ask(...forward);
  assert.deepEqual([step.asked, step.sent], ['POST /v1/machines/web/branches/friday/forward', {}]);
  const far = await ask(
    ...forward,
    '--to',
    'latest',
    '--keep',
    '--name',
    'noon',
    '--connect',
    'lan=bridge:br0',
  );
  const networks = { lan: { kind: 'bridge', bridge: 'br0' } };
  assert.deepEqual(far.sent, { to: 'latest', oldBranch: 'keep', name: 'noon', networks });
  assert.equal((await ask(...forward, '--keep', '--discard-writes')).exitCode, 2);
});

it('S0.17 a machine is ceded, taken and withdrawn as was asked for', async (t) => {
  const { ask } = await asking(t, JOB);
  const plain = await ask('failover', 'cede', 'web', '--no-wait');
  assert.deepEqual([plain.asked, plain.sent], ['POST /v1/machines/web/cession', {}]);
  const ceded = await ask(
    'failover',
    'cede',
    'web',
    '--to',
    'berlin',
    '--grace',
    '5m',
    '--power-off',
    '--no-wait',
  );
  assert.deepEqual(ceded.sent, { to: 'berlin', graceMs: 300_000, powerOff: true });
  const taken = await ask(
    ...['failover', 'take', 'web', '--within', '10m', '--probe', 'agent@2m', '--name', 'home'],
    ...['--connect', 'lan=bridge:br0', '--no-wait'],
  );
  assert.equal(taken.asked, 'POST /v1/machines/web/takeover');
  assert.deepEqual(taken.sent, {
    ...{ waitMs: 600_000, name: 'home', probes: [{ kind: 'agent', limitMs: 120_000 }] },
    networks: { lan: { kind: 'bridge', bridge: 'br0' } },
  });
  const withdrawn = await ask('failover', 'withdraw', 'web', '--confirm-other-side-down');
  assert.deepEqual(
    [withdrawn.asked, withdrawn.sent],
    ['POST /v1/machines/web/cession/withdrawal', { confirmOtherSideDown: true }],
  );
});

it('F4 a failover is undone as was asked for, and what is kept of it is told', async (t) => {
  const result = {
    ...{ kind: 'undo', epoch: 2 },
    branches: [{ branchId: ID, name: 'friday', ended: 'shut-down', point: { sequence: 17 } }],
  };
  const { ask } = await asking(t, { ...JOB, kind: 'failover.undo', state: 'done', result });
  const plain = await ask('failover', 'undo', 'web');
  assert.deepEqual([plain.exitCode, plain.asked, plain.sent], [0, 'POST /v1/machines/web/undoing', {}]);
  assert.match(plain.output, /^web is given up here, in epoch 2, and runs nowhere\.$/m);
  assert.match(plain.output, /^Branch friday of point 17: shut down; what was written in it is kept\.$/m);
  assert.match(plain.output, /warmsite failover withdraw web/);
  assert.deepEqual((await ask('failover', 'undo', 'web', '--grace', '5m')).sent, { graceMs: 300_000 });
  assert.deepEqual((await ask('failover', 'undo', 'web', '--now')).sent, { graceMs: 0 });
});

it('S0.17 what became of a cession is told in words, and what comes next', async (t) => {
  for (const [state, words] of [
    [
      'cedes',
      /^web is offered, in epoch 2\. Point 7 holds its last state\. .*: warmsite failover take web$/m,
    ],
    ['follows', /^web was taken over by the other site, in epoch 2\./m],
    ['holds', /^web was offered, and the offer was withdrawn meanwhile\.$/m],
  ] as const) {
    const result = { siteId: ID, epoch: 2, pointId: ID, sequence: 7, state };
    const { ask } = await asking(t, { ...JOB, kind: 'failover.cede', state: 'done', result });
    assert.match((await ask('failover', 'cede', 'web')).output, words);
  }
});

it('S0.23 the list of branches shows names, own writes, and tests that stand still', async (t) => {
  const { ask } = await asking(t, [BRANCH, { ...BRANCH, name: 'held', paused: true }]);
  const { output } = await ask('failover', 'list', 'web');
  assert.match(output, /friday +test +17 +probed +running \(5\) +3(\.0)? MiB/);
  assert.match(output, /held .*the disk is nearly full/);
});

it('S0.23 the rules for tests are shown, and changed where an option says so', async (t) => {
  const rules: FailoverRules = { mostRunning: 3, freeFloorBytes: 2 ** 30 };
  const { ask } = await asking(t, rules);
  const shown = await ask('failover', 'rules');
  assert.equal(shown.asked, 'GET /v1/failover-rules');
  assert.match(shown.output, /cleaned up after +never/);
  const changed = await ask('failover', 'rules', '--most-tests', '0', '--lifetime', 'off');
  assert.deepEqual(
    [changed.asked, changed.sent],
    ['PATCH /v1/failover-rules', { mostRunning: 0, lifetimeMs: null }],
  );
});

it('S0.16 the floor of a site is shown, set by periods and a zone, and taken away', async (t) => {
  const { ask } = await asking(t, { calendar: { zone: 'UTC', daily: 7 } });
  const shown = await ask('replica', 'floor');
  assert.equal(shown.asked, 'GET /v1/retention-floor');
  assert.match(shown.output, /7 daily \(UTC\)/);
  const set = await ask('replica', 'floor', 'daily:7,weekly:4 Europe/Berlin');
  assert.deepEqual(
    [set.asked, set.sent],
    ['PATCH /v1/retention-floor', { calendar: { zone: 'Europe/Berlin', daily: 7, weekly: 4 } }],
  );
  assert.deepEqual((await ask('replica', 'floor', 'none')).sent, { calendar: null });
  assert.equal((await ask('replica', 'floor', 'sometimes')).exitCode, 2);
});

it('S0.21 what the guest is to do ahead goes to the site word by word', async (t) => {
  const { ask } = await asking(t, JOB);
  const run = ['--run', "/bin/sh -c 'revert; sync'", '--run', '/sbin/check', '--limit', '5m'];
  const ran = await ask(
    'failover',
    'prepare',
    'web',
    '--point',
    '17',
    '--no-wait',
    '--name',
    'ready',
    ...run,
  );
  const limitMs = 300_000;
  assert.deepEqual([ran.exitCode, ran.asked], [0, 'POST /v1/machines/web/preparations']);
  assert.deepEqual(ran.sent, {
    ...{ point: '17', name: 'ready' },
    programs: [
      { name: 'run-1', command: '/bin/sh', arguments: ['-c', 'revert; sync'], limitMs },
      { name: 'run-2', command: '/sbin/check', arguments: [], limitMs },
    ],
  });
  assert.equal((await ask('failover', 'prepare', 'web', '--point', '17')).exitCode, 2);
});

it('S0.17 what a machine wrote before it was fenced is listed, booted and exported by its name, and removed by a word alone', async (t) => {
  const diverged: BranchView = {
    ...{ ...BRANCH, name: 'diverged-1', purpose: 'diverged', running: false, state: 'kept' },
    divergedAtMs: 0,
  };
  const { ask } = await asking(t, [diverged]);
  const listed = await ask('failover', 'list', 'web');
  assert.match(listed.output, /diverged-1 +diverged +17 +kept +stopped +3 MiB/);
  assert.match(listed.output, /after point 17 of 1970-01-01.*until you remove it/);
  const unsaid = await ask('failover', 'cleanup', 'web', 'diverged-1', '--no-wait');
  assert.equal(unsaid.exitCode, 2, 'nobody has given a word');
  assert.match(unsaid.messages, /no other site has/);

  const { ask: doing } = await asking(t, JOB);
  const test = ['failover', 'test', 'web', '--branch', 'diverged-1', '--no-wait'];
  const tested = await doing(...test, '--keep');
  assert.deepEqual(
    [tested.asked, tested.sent],
    ['POST /v1/machines/web/branches/diverged-1/tests', { keep: true }],
  );
  assert.equal((await doing(...test, '--point', '17')).exitCode, 2);
  const exported = await doing('failover', 'export', 'web', 'diverged-1', '/srv/compare', '--no-wait');
  assert.deepEqual(
    [exported.asked, exported.sent],
    ['POST /v1/machines/web/branches/diverged-1/exports', { path: '/srv/compare' }],
  );
});
