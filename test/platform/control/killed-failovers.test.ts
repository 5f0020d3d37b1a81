/**
 * The process of a recovery site, whose other site is gone, killed after each act of an unplanned failover, of a plan, of an undoing and of an
 * adoption: after everything that it has made durable, each program that it has begun, each order to QEMU.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { BranchView, PlanRun, RunPlanRequest } from '../../../src/api/index.ts';
import { runPaths } from '../../../src/hypervisor/index.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { QmpClient } from '../../../src/qmp/index.ts';
import { type Command, killedAmid } from '../../support/act-kills.ts';
import type { TestApi } from '../../support/api.ts';
import { type LoneSite, loneSite, PATTERNS, runsOf } from '../../support/lone-site.ts';
import { resultOf } from '../../support/paired-sites.ts';
import { holds } from '../../support/site-of-box.ts';
import { sized, sizedLimitMs } from '../../support/size.ts';

const DB = { params: { machine: 'db' } };
const SHOP = { params: { plan: 'shop' } };
const DOWN = { confirmOtherSideDown: true } as const;
const UNPLANNED: RunPlanRequest = { mode: 'unplanned', ...DOWN };
const MACHINES = ['db', 'web'];
/** More than there are acts in any of it. */
const ALL = 1000;
const LIMIT = { timeout: sizedLimitMs({ normal: 300_000, full: 7_200_000 }) };

/** What a person sees of a machine. */
async function seen(api: TestApi, of = DB) {
  const { epoch, replica } = await api.call('vm.show', of);
  return { epoch, right: replica!.right, branches: await api.call('failover.list', of) };
}

/** Each branch that is said to run has a process, and there is no other one. */
async function assertAsTold(lone: LoneSite, branches: readonly BranchView[]): Promise<void> {
  const runs = await runsOf(lone.site.dataDirectory);
  const told = branches.flatMap(({ running, branchId, processId }) =>
    running ? [[branchId, processId] as const] : [],
  );
  assert.deepEqual([...runs].sort(), told.sort());
}

/** Its processors have been let go, and it has the newest point on its disk. Nobody else speaks to it: the site has ended. */
async function assertAtWork(lone: LoneSite, branch: BranchView): Promise<void> {
  const { qmpPath } = runPaths(join(lone.site.dataDirectory, 'run', branch.branchId));
  const qmp = await QmpClient.connect({ path: qmpPath, clock: systemClock });
  const { status } = await qmp.execute<{ status: string }>('query-status');
  await qmp.close();
  assert.equal(status, 'running');
  assert.ok(await holds(lone.diskOf(branch), PATTERNS.newest, 0), 'the newest point');
}

/** Of each job that has begun there is one report, and no act that was begun has two ends on record. */
async function assertRecorded(api: TestApi): Promise<void> {
  const all = await api.call('job.list');
  const jobs = all.map(({ jobId }) => jobId);
  const { reports, unreadable } = await api.call('report.list');
  assert.deepEqual(unreadable, []);
  const reported = reports.map(({ reportId }) => reportId);
  assert.deepEqual([...new Set(reported)].length, reported.length);
  const begun = all.filter(({ startedAtMs }) => startedAtMs !== undefined);
  for (const { jobId } of begun) assert.ok(reported.includes(jobId), 'each has its report');
  const { entries } = await api.call('audit.list', { query: { limit: '1000' } });
  for (const { sequence, act, phase, details } of entries) {
    if (phase !== 'intent') continue;
    const ends = entries.filter(({ intent }) => intent === sequence).length;
    // Of a call that was cut short there is none, and of a job whose site was killed before it was one.
    const isJob = jobs.includes(String(details.jobId));
    assert.ok(isJob ? ends === 1 : ends <= 1, `${ends} ends of ${act} are on record`);
  }
}

/** What failovers have brought up is given up and removed, and nothing of it is left. */
async function assertGoes(lone: LoneSite, api: TestApi, machines: readonly string[]): Promise<void> {
  for (const machine of machines) {
    const of = { params: { machine } };
    await resultOf(api, await api.call('failover.undo', { ...of, body: { graceMs: 0 } }));
    for (const { branchId } of await api.call('failover.list', of)) {
      const params = { machine, branch: branchId };
      await resultOf(api, await api.call('failover.cleanup', { params }));
    }
  }
  assert.deepEqual([...(await runsOf(lone.site.dataDirectory))], []);
  assert.deepEqual(await lone.left(), []);
}

async function startOf({ bridge }: LoneSite, api: TestApi): Promise<unknown> {
  const body = { ...DOWN, probes: [], networks: { lan: { kind: 'bridge', bridge } as const } };
  return resultOf(api, await api.call('failover.start', { ...DB, body }));
}

function failover(lone: LoneSite): Command {
  let epoch = 0;
  const say = async (api: TestApi) => {
    epoch = 1 + (await seen(api)).epoch;
    await startOf(lone, api);
  };
  return {
    say,
    // Its QEMU is there, and its guest stands still.
    always: /^program qemu-system-x86_64 .*\/run\//,
    // As the failure of the job says: look at what stands, then go on.
    sayAgain: async (api) => {
      const stood = await seen(api);
      const [branch, ...others] = stood.branches;
      await assertAsTold(lone, stood.branches);
      assert.deepEqual(others, []);
      assert.equal(stood.right, stood.epoch === 1 ? undefined : 'held');
      epoch = stood.epoch;
      if (!branch) return say(api);
      if (branch.running) return assert.rejects(startOf(lone, api), /FAILOVER_RUNS_ALREADY/);
      assert.equal(branch.state, 'stopped');
      const params = { machine: 'db', branch: branch.branchId };
      const networks = { lan: { kind: 'bridge', bridge: lone.bridge } } as const;
      return resultOf(api, await api.call('failover.restart', { params, body: { probes: [], networks } }));
    },
    check: async (api) => {
      const { branches, ...now } = await seen(api);
      assert.deepEqual([now.epoch, now.right, branches.length], [epoch, 'held', 1]);
      await assertAsTold(lone, branches);
      await assertRecorded(api);
      await lone.site.end('SIGKILL');
      await assertAtWork(lone, branches[0]!);
      await assertGoes(lone, await lone.site.serve(), ['db']);
    },
  };
}

function plan(lone: LoneSite): Command {
  const say = async (api: TestApi) =>
    resultOf(api, (await api.call('plan.run', { ...SHOP, body: UNPLANNED })).job);
  return {
    before: async (api) => {
      const networks = { office: { away: { kind: 'bridge', bridge: lone.bridge } as const } };
      const machines = { db: {}, web: { tier: 2 } };
      await api.call('plan.put', { body: { plan: 'shop', networks, machines } });
    },
    say,
    // A run goes on by itself; where there is none it is begun.
    sayAgain: async (api) => {
      if ((await api.call('plan.runs')).length === 0) await say(api);
    },
    check: async (api) => {
      const runs: PlanRun[] = await api.call('plan.runs');
      assert.deepEqual(
        runs.map(({ verdict }) => verdict),
        ['done'],
        JSON.stringify(runs),
      );
      const branches: BranchView[] = [];
      for (const { machine, branchId } of runs[0]!.steps) {
        const now = await seen(api, { params: { machine } });
        assert.deepEqual(
          [now.right, now.branches.map((one) => [one.branchId, one.running])],
          ['held', [[branchId, true]]],
        );
        // Once more at the most, where the site was killed between the right and what was made by it.
        assert.ok(now.epoch === 2 || now.epoch === 3, `epoch ${now.epoch}`);
        branches.push(...now.branches);
      }
      await assertAsTold(lone, branches);
      await assertRecorded(api);
      await lone.site.end('SIGKILL');
      for (const branch of branches) await assertAtWork(lone, branch);
      await assertGoes(lone, await lone.site.serve(), MACHINES);
    },
  };
}

function undoing(lone: LoneSite): Command {
  const say = async (api: TestApi) =>
    resultOf(api, await api.call('failover.undo', { ...DB, body: { graceMs: 0 } }));
  return {
    before: (api) => startOf(lone, api).then(() => undefined),
    say,
    sayAgain: async (api) => {
      const { right, branches } = await seen(api);
      await assertAsTold(lone, branches);
      if (right === 'held') await say(api);
    },
    check: async (api) => {
      const { epoch, right, branches } = await seen(api);
      assert.deepEqual([epoch, right], [2, 'given-up']);
      assert.deepEqual(
        branches.map(({ state, running }) => [state, running]),
        [['stopped', false]],
      );
      assert.ok(await holds(lone.diskOf(branches[0]!), PATTERNS.newest, 0), 'what was written stays');
      await assertRecorded(api);
      await assertGoes(lone, api, ['db']);
    },
  };
}

function adoption(lone: LoneSite): Command {
  const say = (api: TestApi) => api.call('failover.adopt', { ...DB, body: {} });
  let processId: number | undefined;
  return {
    before: async (api) => {
      await startOf(lone, api);
      processId = (await seen(api)).branches[0]!.processId;
    },
    say,
    sayAgain: async (api) => {
      const view = await api.call('vm.show', DB);
      if (!view.protected) await say(api);
    },
    check: async (api) => {
      const { epoch, protected: home } = await api.call('vm.show', DB);
      assert.deepEqual([epoch, home!.presence.state, home!.heldBy], [2, 'running', undefined]);
      const branches = await api.call('failover.list', DB);
      assert.deepEqual(
        branches.map((one) => [one.adopted, one.processId]),
        [[true, processId]],
      );
      await assertAsTold(lone, branches);
      await assertRecorded(api);
      const { reports } = await api.call('report.list');
      assert.equal(reports.filter(({ kind, verdict }) => kind === 'adopt' && verdict === 'passed').length, 1);
      await lone.site.end('SIGKILL');
      await assertAtWork(lone, branches[0]!);
      const again = await lone.site.serve();
      await again.call('vm.stop', { ...DB, body: { force: true } });
      assert.deepEqual([...(await runsOf(lone.site.dataDirectory))], []);
    },
  };
}

describe('a recovery site alone that is killed after any act, and begun again', LIMIT, () => {
  let lone: LoneSite;
  let end: () => void | Promise<void> = () => undefined;
  before(async () => {
    const after = (fn: typeof end) => {
      end = fn;
    };
    lone = await loneSite({ after }, MACHINES);
  });
  after(() => end());

  const counted = (what: string, normal: number) => sized({ what: `${what} at most`, normal, full: ALL });

  it('F4 S0.10 has a machine run once that it fails over', LIMIT, (context) =>
    killedAmid(context, lone, failover(lone), counted('F4: kills amid an unplanned failover', 2)),
  );

  it('F5 S0.10 has each machine of a plan run once, and goes on with it by itself', LIMIT, (context) =>
    killedAmid(context, lone, plan(lone), counted('F5: kills amid a plan', 1)),
  );

  it('F4 S0.10 goes on with an undoing by itself, and keeps what was written', LIMIT, (context) =>
    killedAmid(context, lone, undoing(lone), counted('F4: kills amid an undoing', 1)),
  );

  it('F4 S0.10 has a machine at home or not that it adopts, which runs on', LIMIT, (context) =>
    killedAmid(context, lone, adoption(lone), counted('F4: kills amid an adoption', 1)),
  );
});
