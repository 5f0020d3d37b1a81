import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import type { PlanMode } from '../../../src/api/index.ts';
import { Alerts, failureOf } from '../../../src/control/base/alerts.ts';
import { openDatabase } from '../../../src/control/base/database.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

it('F5 what was done in earnest is on record however many nights a plan was rehearsed since, and of those the last', async (t) => {
  const directory = await temporaryDirectory(t);
  const alerts = { raise: () => undefined, clear: () => undefined };
  const tools = { files: nodeFiles, clock: systemClock, alerts, events: new EventHub() };
  const store = await PlanStore.open(tools, directory);
  const add = async (mode: PlanMode): Promise<string> => {
    const runId = newId(systemClock, systemRandom);
    await store.addRun({
      ...{ runId, actor: 'site', request: { mode }, startedAtMs: 1, endedAtMs: 2, verdict: 'done' },
      ...{ document: { plan: 'shop', machines: { db: {} } }, steps: [] },
    });
    return runId;
  };
  const ceded = await add('cede');
  const nights: string[] = [];
  for (let night = 0; night < 203; night++) nights.push(await add('test'));
  const kept = [ceded, ...nights.slice(3)].toReversed();
  assert.deepEqual(
    store.runs.map(({ runId }) => runId),
    kept,
  );
  const { runs } = await PlanStore.open(tools, directory);
  assert.deepEqual(runs.map(({ runId }) => runId).sort(), kept.sort());
});

it('F5 the newest rehearsal of a plan that came to an end is on record however many of others there were since', async (t) => {
  const directory = await temporaryDirectory(t);
  const alerts = { raise: () => undefined, clear: () => undefined };
  const tools = { files: nodeFiles, clock: systemClock, alerts, events: new EventHub() };
  const store = await PlanStore.open(tools, directory);
  for (const plan of ['shop', 'mail']) await store.put({ plan, machines: { db: {} } });
  const add = async (plan: string, verdict: 'done' | 'failed' | 'cancelled'): Promise<string> => {
    const runId = newId(systemClock, systemRandom);
    await store.addRun({
      ...{ runId, jobId: runId, actor: 'site', request: { mode: 'test' }, startedAtMs: 1, endedAtMs: 2 },
      ...{ verdict, document: { plan, machines: { db: {} } }, steps: [] },
    });
    return runId;
  };
  const older = await add('shop', 'failed');
  const failed = await add('shop', 'failed');
  const cancelled = await add('shop', 'cancelled');
  const gone = await add('gone', 'failed');
  for (let night = 0; night < 200; night++) await add('mail', 'done');
  const kept = new Set(store.runs.map(({ runId }) => runId));
  assert.equal(kept.size, 200);
  assert.deepEqual(
    [older, failed, cancelled, gone].map((runId) => kept.has(runId)),
    [false, true, false, false],
  );
});

it('F5 the alert of a run that cannot be read goes when its file has been moved away, and that of another one stays', async (t) => {
  const directory = await temporaryDirectory(t);
  const database = openDatabase(join(directory, 'site.db'));
  t.after(() => database.close());
  const events = new EventHub();
  const alerts = new Alerts({ database, clock: systemClock, events, log: silentLog });
  alerts.raise('plan:shop', 'warning', failureOf(new Error('another')));
  const ids = [newId(systemClock, systemRandom), newId(systemClock, systemRandom)];
  const paths = ids.map((runId) => join(directory, 'plan-runs', `${runId}.json`));
  await mkdir(join(directory, 'plan-runs'));
  for (const path of paths) await writeFile(path, '{');
  const standing = async () => {
    const store = await PlanStore.open({ files: nodeFiles, clock: systemClock, alerts, events }, directory);
    alerts.clearGone('plan-run', store.unreadRuns);
    return alerts.list({ all: false }).map(({ key }) => key);
  };
  assert.deepEqual(new Set(await standing()), new Set(['plan:shop', ...ids.map((id) => `plan-run:${id}`)]));
  await rm(paths[0]!);
  assert.deepEqual(new Set(await standing()), new Set(['plan:shop', `plan-run:${ids[1]}`]));
});
