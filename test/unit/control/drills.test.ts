/** The loop that drills: what it begins, what it tells, and that neither a full budget nor a failure ends it. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { JobView } from '../../../src/api/index.ts';
import type { JobRequest } from '../../../src/control/base/jobs.ts';
import { DrillDebts } from '../../../src/control/drills/drill-debts.ts';
import { attemptOf, drillViewOf, outcomeOf } from '../../../src/control/drills/drill-outcome.ts';
import { DrillSettings } from '../../../src/control/drills/drill-settings.ts';
import { Drills } from '../../../src/control/drills/drills.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import { BOOT_PROOF } from '../../../src/failover/records.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { encodeRecord } from '../../../src/lib/records.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { machineThatIsOff } from '../../support/paired-sites.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const HOUR_MS = 3_600_000;
const DIGEST = 'd'.repeat(64);

/** The loop has done all that there was to do: it waits for something to happen, or for the clock. */
async function settled(clock: FakeClock): Promise<void> {
  while (clock.pending === 0) await new Promise(setImmediate);
}

/** A site with one replica, «box», whose guest has an agent and 64 MiB. */
async function drilling(t: CleanUp) {
  const directory = await temporaryDirectory(t);
  const clock = new FakeClock();
  const settings = await DrillSettings.open(nodeFiles, directory);
  await settings.change('box', { proveWithinMs: HOUR_MS });
  const points: unknown[] = [];
  const asked = machineThatIsOff({ path: '/x', sizeBytes: 2 ** 20, format: 'raw' });
  const configuration = {
    ...('configuration' in asked ? (asked.configuration as object) : {}),
    guestAgent: true,
  };
  const layout = { proofs: (pointId: string) => join(directory, 'proofs', pointId) };
  const replica = {
    record: { machineId: 'box', machineName: 'box', retention: { types: { app: 9 } } },
    ...{ points, layout, awaitsSeed: false },
    get newest() {
      return points.at(-1);
    },
  } as unknown as Replica;
  const other = { ...replica, newest: {}, record: { ...replica.record, machineId: 'other' } } as Replica;
  await settings.change('other', { proveWithinMs: HOUR_MS });
  const jobs: JobView[] = [];
  const said: string[] = [];
  const state = {
    isUrgent: false,
    failure: undefined as Failure | undefined,
    unreadable: undefined as Failure | undefined,
  };
  const start = (request: Omit<JobRequest, 'actor'>): JobView => {
    if (state.failure) throw state.failure;
    const createdAtMs = clock.wallMs();
    const about = { jobId: `j${jobs.length}`, createdAtMs, actor: 'site', progress: {} };
    jobs.unshift({ ...about, state: 'running', ...request, args: { ...request.args } });
    return jobs[0]!;
  };
  const drills = new Drills({
    ...{ files: nodeFiles, clock, log: silentLog, zones: new Zones(), settings },
    debts: await DrillDebts.open(nodeFiles, directory),
    replicas: { list: () => (state.unreadable ? [other, replica] : [replica]) },
    keeper: {
      verdicts: async (of) => {
        if (of === other && state.unreadable) throw state.unreadable;
        return [];
      },
    },
    isUrgent: () => state.isUrgent,
    alerts: {
      raise: (_key, _severity, { code }) => void said.push(code),
      clear: (key) => void said.push(`no ${key}`),
    },
    jobs: () => ({
      start,
      ofMachine: (kind) => jobs.filter((job) => job.kind === kind),
      underWay: (kinds) => jobs.filter((job) => job.state === 'running' && kinds.includes(job.kind)),
    }),
  });
  t.after(() => drills.close());
  drills.begin();
  const publish = async (sequence: number) => {
    const statement = { pointId: `p${sequence}`, sequence, copyType: 'app', consistency: 'application' };
    const manifest = { publishedAtMs: clock.wallMs() };
    points.push({ statement: { ...statement, configuration }, manifest, statementDigest: DIGEST });
    drills.heard({ event: 'point', change: 'published', machineId: 'box', pointId: `p${sequence}` });
    await settled(clock);
  };
  /** The drill under way ends, with a proof if it was carried out. */
  const end = async (verdict: 'passed' | 'failed', change: Partial<JobView> = {}) => {
    const job = jobs.find(({ state: of }) => of === 'running')!;
    const { pointId } = job.args as { pointId: string };
    const path = join(layout.proofs(pointId), 'boot.json');
    const reasons = verdict === 'failed' ? ['no agent'] : [];
    const proof = {
      ...{ pointId, statementDigest: DIGEST, verdict, reasons, startedAtMs: clock.wallMs(), rtoMs: 10 },
      ...{ accelerator: 'tcg' as const, network: 'isolated' as const, probes: [], nonce: 'read' as const },
      picture: null,
    };
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, encodeRecord(BOOT_PROOF, { proof, keyId: 'k', signature: 's' }));
    const ended = {
      state: 'done' as const,
      endedAtMs: clock.wallMs(),
      result: { verdict, attempts: [{ reasons }] },
    };
    Object.assign(job, ended, change);
    drills.heard({ event: 'job', job });
    await settled(clock);
  };
  /** The proof of a point is damaged. */
  const spoil = (sequence: number) => writeFile(join(layout.proofs(`p${sequence}`), 'boot.json'), '');
  return { drills, clock, settings, jobs, said, state, publish, end, start, spoil };
}

const begun = (jobs: readonly JobView[]) =>
  jobs.map(({ kind, args }) => `${kind} ${args.pointId}`).toReversed();

test('F6 points are drilled one after the other, what fails is told, and the next that passes heals it', async (t) => {
  const { clock, jobs, said, publish, end } = await drilling(t);
  await publish(1);
  await publish(2);
  assert.deepEqual(begun(jobs), ['drill.run p1'], 'it had begun before the second came');
  assert.equal(jobs[0]!.args.why, 'the next that this site drills by itself', 'no person has named it');
  await end('failed');
  assert.deepEqual(begun(jobs), ['drill.run p1', 'drill.run p2']);
  assert.ok(said.includes('DRILL_FAILED'));
  const before = said.length;
  await publish(3);
  assert.deepEqual(said.slice(before), [], 'an alert is not renewed with every look');
  await end('passed');
  assert.deepEqual(said.slice(before), ['no drill-failed:box']);
  await end('passed');
  await clock.advance(60_000);
  await settled(clock);
  assert.deepEqual(begun(jobs).slice(2), ['drill.run p3', 'drill.run p1'], 'the older one once more');
});

test('F6 a preparation takes of the budget, and a failover that waits holds drills up', async (t) => {
  const { drills, clock, settings, jobs, start, publish } = await drilling(t);
  await settings.changeBudget({ memoryBytes: 100 * 2 ** 20, atOnce: 4 });
  start({ kind: 'failover.prepare', args: { pointId: 'p0' }, machineId: 'other' });
  jobs[0]!.args.memoryBytes = 64 * 2 ** 20;
  await publish(1);
  assert.equal(jobs.length, 1);
  start({ kind: 'failover.start', args: {}, machineId: 'other' });
  Object.assign(jobs[1]!, { state: 'done' });
  drills.heard({ event: 'job', job: jobs[1]! });
  await settled(clock);
  assert.equal(jobs.length, 2, 'a failover is under way');
  Object.assign(jobs[0]!, { state: 'done' });
  drills.heard({ event: 'job', job: jobs[0]! });
  await settled(clock);
  assert.deepEqual(begun(jobs).at(-1), 'drill.run p1');
});

test('F6 a site that cannot begin a drill says so, tries again, and says that it is over', async (t) => {
  const { clock, jobs, said, state, publish } = await drilling(t);
  state.failure = controlFailure('SITE_DATABASE_FULL', 'no room');
  await publish(1);
  assert.ok(said.includes('SITE_DATABASE_FULL'));
  assert.equal(jobs.length, 0);
  state.failure = undefined;
  await clock.advance(15_000);
  await settled(clock);
  assert.equal(jobs.length, 1);
  assert.equal(said.at(-1), 'no drills');
});

test('F6 a machine whose proofs cannot be read hinders no other, and is told', async (t) => {
  const { clock, drills, jobs, said, state, publish } = await drilling(t);
  state.unreadable = controlFailure('JOB_UNKNOWN', 'unreadable');
  await publish(1);
  assert.deepEqual(begun(jobs), ['drill.run p1']);
  assert.ok(said.includes('JOB_UNKNOWN'));
  state.unreadable = undefined;
  drills.changed();
  await settled(clock);
  assert.ok(said.includes('no drill-unreadable:other'));
});

test('F6 a point whose proof cannot be read is drilled once more, which writes it anew', async (t) => {
  const { jobs, publish, end, spoil } = await drilling(t);
  await publish(1);
  await end('passed');
  await spoil(1);
  await publish(2);
  await end('passed');
  assert.deepEqual(begun(jobs), ['drill.run p1', 'drill.run p2', 'drill.run p1']);
  await end('passed');
  assert.equal(jobs.length, 3);
});

test('F6 a missing proof is told when its time has come, though nothing happens', async (t) => {
  const { clock, said, settings, publish, drills } = await drilling(t);
  await settings.pause(undefined, true);
  await publish(1);
  await clock.advance(HOUR_MS - 1);
  await settled(clock);
  assert.ok(!said.includes('POINT_UNPROVEN'));
  // The loop looks at least once a minute: the clock is turned step by step.
  await clock.advance(60_000);
  await settled(clock);
  assert.ok(said.includes('POINT_UNPROVEN'));
  await settings.change('box', null);
  drills.changed('box');
  await settled(clock);
  assert.ok(said.slice(-3).includes('no drill-unproven:box'));
});

test('F6 how a drill ended is read from its job', () => {
  const job = (change: Partial<JobView>) =>
    ({
      ...{ jobId: 'j', kind: 'drill.run', machineId: 'm', actor: 'site', createdAtMs: 1, progress: {} },
      ...{ state: 'done', args: { pointId: 'p', sequence: 4, ofOthers: true }, startedAtMs: 2, endedAtMs: 3 },
      ...change,
    }) as JobView;
  const failed = (code: string) =>
    outcomeOf(job({ state: 'failed', failure: { code, message: 'why' } as NonNullable<JobView['failure']> }));
  assert.deepEqual(failed('FAILOVER_SPACE_LOW'), { outcome: 'hindered', reason: 'why' });
  assert.equal(failed('JOB_INTERRUPTED').outcome, 'interrupted');
  assert.equal(failed('FAILOVER_GAVE_WAY').outcome, 'gave-way');
  assert.equal(outcomeOf(job({ state: 'cancelled' })).outcome, 'cancelled');
  const refuted = { verdict: 'passed', attempts: [{ assertions: [{ name: 'sum', outcome: 'failed' }] }] };
  assert.deepEqual(outcomeOf(job({ result: refuted })), {
    outcome: 'refuted',
    reason: 'not as claimed: sum',
  });
  const open = { verdict: 'passed', attempts: [{ assertions: [{ name: 'sum', outcome: 'not-run' }] }] };
  assert.equal(outcomeOf(job({ result: open })).outcome, 'passed');
  assert.equal(outcomeOf(job({ result: { verdict: 'unproven' } })).outcome, 'unproven');
  assert.equal(attemptOf(job({ state: 'running' })), undefined);
  assert.deepEqual(attemptOf(job({ result: { verdict: 'passed', rtoMs: 7 } })), {
    ...{ pointId: 'p', sequence: 4, ofOthers: true, startedAtMs: 2, endedAtMs: 3, outcome: 'passed' },
  });
  assert.equal(drillViewOf(job({ result: { verdict: 'passed', rtoMs: 7 } })).rtoMs, 7);
  assert.equal(drillViewOf(job({ state: 'queued' })).outcome, 'queued');
});
