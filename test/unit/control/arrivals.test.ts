import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ArrivalRule, JobView } from '../../../src/api/index.ts';
import type { AlertSink } from '../../../src/control/base/alerts.ts';
import type { JobRequest } from '../../../src/control/base/jobs.ts';
import { ArrivalRules } from '../../../src/control/drills/arrival-rules.ts';
import { Arrivals, type ArrivalTools } from '../../../src/control/drills/arrivals.ts';
import { controlFailure } from '../../../src/control/errors.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { replicaFailure } from '../../../src/replica/errors.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const ALL: ArrivalRule = {
  work: { kind: 'prepare', programs: [{ name: 'revert', command: '/revert', arguments: [], limitMs: 1000 }] },
};

const PREPARE: ArrivalRule = { copyTypes: ['app'], ...ALL };

interface Branch {
  readonly branchId: string;
  readonly pointId: string;
  readonly purpose: 'prepared' | 'test';
  readonly name?: string;
}

/** Arrivals of one replica over jobs that end when the test says so. */
async function arrivalsOf(t: CleanUp, rule: ArrivalRule) {
  const directory = await temporaryDirectory(t);
  const rules = await ArrivalRules.open(nodeFiles, directory);
  await rules.change('box', rule);
  const points: { statement: { pointId: string; sequence: number; copyType: string } }[] = [];
  const branches: Branch[] = [];
  const needed = new Set<string>();
  const replica = {
    record: { machineId: 'box', machineName: 'box' },
    points,
    branches,
  } as unknown as Replica;
  const begun: { request: JobRequest; end: (ended: Partial<JobView>) => void; view: Promise<JobView> }[] = [];
  const raised = new Map<string, string>();
  const tools: ArrivalTools = {
    rules,
    replicaOf: (machineId) => (machineId === 'box' ? replica : undefined),
    removeBranch: async (_replica, branchId) => {
      if (needed.has(branchId)) throw replicaFailure('BRANCH_NEEDED', 'somebody lies on it');
      branches.splice(
        branches.findIndex((branch) => branch.branchId === branchId),
        1,
      );
    },
    start: (request) => {
      const { promise, resolve } = Promise.withResolvers<JobView>();
      const jobId = String(begun.length);
      begun.push({
        request,
        view: promise,
        end: (ended) => resolve({ state: 'done', result: { verdict: 'passed' }, ...ended } as JobView),
      });
      return { jobId } as JobView;
    },
    endOf: (jobId, signal) =>
      Promise.race([
        begun[Number(jobId)]!.view,
        new Promise<undefined>((resolve) => signal.addEventListener('abort', () => resolve(undefined))),
      ]),
    alerts: {
      raise: (key, _severity, failure: Failure) =>
        void raised.set(key, `${failure.code}: ${failure.message}`),
      clear: (key) => void raised.delete(key),
      clearGone: (kind, keys) => {
        for (const key of raised.keys()) if (key.startsWith(`${kind}:`) && !keys.has(key)) raised.delete(key);
      },
    },
  };
  const arrivals = new Arrivals(tools);
  t.after(() => arrivals.close());
  const publish = (sequence: number, copyType: string) => {
    const pointId = `p${sequence}`;
    points.push({ statement: { pointId, sequence, copyType } });
    arrivals.heard({ event: 'point', change: 'published', machineId: 'box', pointId });
  };
  return { arrivals, tools, rules, directory, begun, branches, needed, publish, raised, points };
}

async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
}

const about = ({ request }: { request: JobRequest }) => [request.kind, request.args.pointId];

test('S0.21 points that arrive are prepared one at a time, and the newest next', async (t) => {
  const { begun, publish } = await arrivalsOf(t, ALL);
  publish(1, 'crash');
  publish(2, 'crash');
  publish(3, 'app');
  await turns();
  assert.deepEqual(begun.map(about), [['failover.prepare', 'p1']]);
  assert.equal(begun[0]!.request.actor, 'site');
  begun[0]!.end({});
  await turns();
  assert.deepEqual(begun.map(about).slice(1), [['failover.prepare', 'p3']]);
  begun[1]!.end({});
  await turns();
  assert.equal(begun.length, 2);
});

test('S0.21 a point for whose job there is no room is told, and the next one has its turn', async (t) => {
  const { begun, publish, raised, tools } = await arrivalsOf(t, ALL);
  const { start } = tools;
  Object.assign(tools, {
    start: () => {
      throw controlFailure('SITE_DATABASE_FULL', 'there is no room');
    },
  });
  publish(1, 'app');
  await turns();
  assert.match(raised.get('arrival:box') ?? '', /ARRIVAL_FAILED: point 1 .*there is no room/);
  Object.assign(tools, { start });
  publish(2, 'app');
  await turns();
  begun[0]!.end({});
  await turns();
  assert.equal(raised.size, 0);
});

test('S0.21 a point that cannot be prepared is told until a later one is', async (t) => {
  const { begun, publish, raised } = await arrivalsOf(t, ALL);
  const ended = async (sequence: number, view: Partial<JobView>) => {
    publish(sequence, 'app');
    await turns();
    begun.at(-1)!.end(view);
    await turns();
    return raised.get('arrival:box');
  };
  const attempts = [{ reasons: ['agent: no success within 1000 ms'] }];
  assert.equal(
    await ended(1, { result: { verdict: 'failed', attempts } }),
    'ARRIVAL_FAILED: point 1 of box could not be prepared: agent: no success within 1000 ms',
  );
  const claims = [{ reasons: [], assertions: [{ name: 'balance', outcome: 'failed' }] }];
  assert.match(
    (await ended(2, { result: { verdict: 'passed', attempts: claims } }))!,
    /not as claimed: balance/,
  );
  const failure = { code: 'FAILOVER_SPACE_LOW', message: 'the disk is nearly full' } as JobView['failure'];
  assert.match((await ended(3, { state: 'failed', failure }))!, /the disk is nearly full/);
  assert.match((await ended(4, { state: 'cancelled' }))!, /nearly full/, 'a person who cancels knows');
  assert.equal(await ended(5, {}), undefined);
});

test('S0.21 points of the named types are prepared; what was prepared of older ones goes if nobody needs it', async (t) => {
  const { begun, publish, branches, needed, raised } = await arrivalsOf(t, PREPARE);
  branches.push(
    { branchId: 'b1', pointId: 'p0', purpose: 'prepared', name: 'arrival-0' },
    { branchId: 'b2', pointId: 'p0', purpose: 'prepared', name: 'by-hand' },
    { branchId: 'b3', pointId: 'p0', purpose: 'prepared', name: 'arrival-00' },
    { branchId: 'b4', pointId: 'p0', purpose: 'test', name: 'arrival-1' },
  );
  needed.add('b3');
  publish(1, 'crash');
  await turns();
  assert.equal(begun.length, 0);
  publish(2, 'app');
  await turns();
  const { args } = begun[0]!.request;
  assert.deepEqual(
    [begun[0]!.request.kind, args.pointId, args.name],
    ['failover.prepare', 'p2', 'arrival-2'],
  );
  branches.push({ branchId: 'new', pointId: 'p2', purpose: 'prepared', name: 'arrival-2' });
  begun[0]!.end({});
  await turns();
  assert.deepEqual(
    branches.map(({ branchId }) => branchId),
    ['b2', 'b3', 'b4', 'new'],
  );
  assert.equal(raised.size, 0);
});

test('S0.21 what was not done when the site stopped is done with the newest point when it starts', async (t) => {
  const first = await arrivalsOf(t, PREPARE);
  first.publish(1, 'app');
  first.publish(2, 'app');
  first.publish(3, 'crash');
  await turns();
  await first.arrivals.close();
  first.publish(4, 'crash');
  assert.equal(first.begun.length, 1, 'nothing begins once it is closed');

  const rules = await ArrivalRules.open(nodeFiles, first.directory);
  assert.deepEqual(rules.of('box'), PREPARE);
  const again = new Arrivals({ ...first.tools, rules });
  t.after(() => again.close());
  again.begin();
  await turns();
  assert.deepEqual(first.begun.map(about).slice(1), [['failover.prepare', 'p2']]);
  first.branches.push({ branchId: 'new', pointId: 'p2', purpose: 'prepared', name: 'arrival-2' });
  first.begun[1]!.end({});
  await turns();
  again.ruleChanged('box');
  await turns();
  assert.equal(first.begun.length, 2, 'it has been done');
});

test('S0.21 F5 what was said of a point stands while the rules cannot be read, and goes when they have been moved away', async (t) => {
  const first = await arrivalsOf(t, ALL);
  const said = () => [...first.raised.keys()];
  first.publish(1, 'app');
  await turns();
  first.begun[0]!.end({ result: { verdict: 'failed', attempts: [] } });
  await turns();
  await first.arrivals.close();
  const alerts: AlertSink = { raise: () => undefined, clear: () => undefined };
  const started = async () => {
    const rules = await ArrivalRules.open(nodeFiles, first.directory, alerts);
    const next = new Arrivals({ ...first.tools, rules });
    next.begin();
    await next.close();
  };
  await started();
  assert.deepEqual(said(), ['arrival:box']);
  const path = join(first.directory, 'arrivals.json');
  await writeFile(path, '{');
  await started();
  assert.deepEqual(said(), ['arrival:box']);
  await rm(path);
  await started();
  assert.deepEqual(said(), []);
});
