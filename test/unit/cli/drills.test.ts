import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { DrillMachineView, DrillStatusView, DrillView } from '../../../src/api/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { asking } from './asking.ts';

const ID = newId(systemClock, systemRandom);
const nowMs = systemClock.wallMs();
const MACHINE: DrillMachineView = {
  ...{ machineId: ID, name: 'web', from: 'site', isPaused: false, state: 'too-large', waiting: 2 },
  ...{ isOverdue: true, unprovenSinceMs: nowMs - 7_200_000, dueAtMs: nowMs - 3_600_000 },
  newestProven: { pointId: ID, sequence: 17, provenAtMs: nowMs - 86_400_000, rtoMs: 4200 },
  reason: 'it needs 8192 MiB',
};
const STATUS: DrillStatusView = {
  budget: { memoryBytes: 2 ** 31, atOnce: 2, cpuPercent: 150, quiet: [] },
  ...{ usedBytes: 2 ** 30, isPaused: true, givesWay: false, sitePolicy: null, machines: [MACHINE] },
};
const POLICY = { policy: { proveWithinMs: 14_400_000, copyTypes: ['app'] }, from: 'machine' };

it('F6 the status says what is proven, with its RTO, and what hinders the others', async (t) => {
  const { ask } = await asking(t, STATUS);
  const { exitCode, asked, output } = await ask('drill', 'status');
  assert.deepEqual([exitCode, asked], [0, 'GET /v1/drills']);
  assert.match(output, /memory +2 GiB, 1 GiB of it in use/);
  assert.match(output, /CPU time +150% of one CPU/);
  assert.match(output, /paused +all/);
  assert.match(output, /web +too-large +17 +1 d ago +4\.2 s +2 +1 h ago +it needs 8192 MiB/);
  assert.equal(
    (await ask('drill', 'budget')).asked,
    'GET /v1/drills',
    'without an option nothing is changed',
  );
  assert.equal((await ask('drill', 'pause')).asked, 'POST /v1/drills/pause');
  assert.equal((await ask('drill', 'budget', '--memory', '8G')).asked, 'PATCH /v1/drills/budget');
  assert.equal((await ask('drill', 'policy')).asked, 'GET /v1/drills');
  assert.equal((await ask('drill', 'policy', '--on')).asked, 'POST /v1/drills/policy');
  assert.equal((await ask('drill', 'policy', '--off')).asked, 'DELETE /v1/drills/policy');
});

it('F6 a policy is given whole, taken away, or shown', async (t) => {
  const { ask } = await asking(t, POLICY);
  const shown = await ask('drill', 'policy', 'web');
  assert.equal(shown.asked, 'GET /v1/machines/web/drill-policy');
  assert.match(shown.output, /each of type app/);
  assert.match(shown.output, /proof within +4 h/);
  const set = ['--copy-type', 'app', '--others-interval', '6h', '--within', '4h', '--probe', 'agent@5m'];
  const whole = await ask('drill', 'policy', 'web', ...set);
  assert.equal(whole.asked, 'POST /v1/machines/web/drill-policy');
  assert.deepEqual(whole.sent, {
    policy: {
      ...{ copyTypes: ['app'], others: { everyMs: 21_600_000 }, proveWithinMs: 14_400_000 },
      probes: [{ kind: 'agent', limitMs: 300_000 }],
    },
  });
  const off = await ask('drill', 'policy', 'web', '--off');
  assert.deepEqual(off.sent, { policy: null });
  const on = await ask('drill', 'policy', 'web', '--on');
  assert.deepEqual(on.sent, { policy: { proveWithinMs: 86_400_000 } });
  const back = await ask('drill', 'policy', 'web', '--as-all');
  assert.equal(back.asked, 'DELETE /v1/machines/web/drill-policy');
  for (const wrong of [['web', '--off', '--within', '4h'], ['--as-all'], ['web', '--on', '--as-all']]) {
    assert.equal((await ask('drill', 'policy', ...wrong)).exitCode, 2, wrong.join(' '));
  }
});

it('F6 quiet hours are given several times, or taken away', async (t) => {
  const { ask } = await asking(t, STATUS);
  const hours = (...all: string[]) => ask('drill', 'budget', ...all.flatMap((one) => ['--quiet', one]));
  const two = await hours('Mon-Fri 08:00-18:00 Europe/Berlin', 'Sat 10:00-12:00 UTC');
  assert.deepEqual(
    two.sent.quiet.map(({ from }: { from: string }) => from),
    ['08:00', '10:00'],
  );
  assert.deepEqual((await hours('none')).sent, { quiet: [] });
  assert.equal((await hours('none', 'Sat 10:00-12:00 UTC')).exitCode, 2);
  const cpus = await ask('drill', 'budget', '--cpu-limit', 'none', '--cpu-weight', '20');
  assert.deepEqual(cpus.sent, { cpuPercent: null, cpuWeight: 20 });
});

it('F6 drills are listed with their end, the time they took, and why', async (t) => {
  const drill: DrillView = {
    ...{ jobId: ID, machineId: ID, pointId: ID, sequence: 18, actor: 'site', outcome: 'failed' },
    ...{ startedAtMs: nowMs - 60_000, endedAtMs: nowMs - 55_000, reason: 'probe agent: no success' },
  };
  const passed: DrillView = { ...drill, sequence: 17, outcome: 'passed', rtoMs: 3100 };
  const { ask } = await asking(t, [drill, passed]);
  const { asked, output } = await ask('drill', 'list', 'web');
  assert.equal(asked, 'GET /v1/machines/web/drills');
  // The seconds that the tests before took are in it as well.
  assert.match(output, /18 +failed +1 min( \d+ s)? ago +5 s +site +probe agent: no success/);
  assert.match(output, /17 +passed .* 3\.1 s/);
});

it('S0.18 how much older a proven point may be is said by who fails over', async (t) => {
  const { ask } = await asking(t, {});
  const start = ['failover', 'start', 'web', '--confirm-other-side-down', '--no-wait'];
  const worth = await ask(...start, '--prefer-proven', '15m', '--prefer-app', 'none');
  assert.deepEqual(worth.sent, {
    wish: { provenWorthMs: 900_000, applicationWorthMs: 0 },
    confirmOtherSideDown: true,
  });
  assert.deepEqual((await ask(...start)).sent, { confirmOtherSideDown: true });
});
