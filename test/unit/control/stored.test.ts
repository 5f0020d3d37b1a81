/** A record of what people have said to a site that cannot be read: the site starts, and does nothing that the record might forbid. */
import assert from 'node:assert/strict';
import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { FailoverActs } from '../../../src/control/acts/failover-acts.ts';
import { FencingActs, openFencing } from '../../../src/control/acts/fencing-acts.ts';
import { RecoveryPlans } from '../../../src/control/acts/plan-acts.ts';
import { RehearsalActs } from '../../../src/control/acts/rehearsal-acts.ts';
import type { AlertSink } from '../../../src/control/base/alerts.ts';
import { EventHub } from '../../../src/control/base/event-hub.ts';
import { ArrivalRules } from '../../../src/control/drills/arrival-rules.ts';
import { openDrillStore } from '../../../src/control/drills/drill-store.ts';
import { Drills } from '../../../src/control/drills/drills.ts';
import { TriggerTokens } from '../../../src/control/machines/trigger-tokens.ts';
import { PlanStore } from '../../../src/control/plans/plan-store.ts';
import { RehearsalStore } from '../../../src/control/plans/rehearsal-store.ts';
import { PlanRehearsals } from '../../../src/control/plans/rehearsals.ts';
import { OlderCopies } from '../../../src/control/replicas/older-copies.ts';
import { RetentionFloor } from '../../../src/control/replicas/retention-floor.ts';
import { StoredTestRules } from '../../../src/control/replicas/test-rules.ts';
import { openReportPolicy, ReportKeeper } from '../../../src/control/reports/report-keeper.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import type { Failure } from '../../../src/lib/errors.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { systemRandom } from '../../../src/lib/random.ts';
import { Zones } from '../../../src/recovery-point/index.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { type CleanUp, temporaryDirectory } from '../../support/temporary.ts';

const NAMES = [
  ...['tests', 'arrivals', 'drills', 'drill-debts', 'floor', 'plans', 'plan-rehearsals'],
  ...['report-policy', 'fencing', 'triggers', 'older-copies'],
];
const CORRUPT = { code: 'RECORD_CORRUPT', hint: /Put the file back .* or move it away/ };

/** The data directory of a site, as often as it starts. */
async function site(t: CleanUp) {
  const directory = await temporaryDirectory(t);
  const standing = new Map<string, Failure>();
  const alerts: AlertSink = {
    raise: (key, severity, failure) => {
      assert.equal(severity, 'critical');
      standing.set(key, failure);
    },
    clear: (key) => void standing.delete(key),
  };
  const audit = { acting: (_act: unknown, work: () => unknown) => work() } as never;
  const open = async () => {
    const arrivals = await ArrivalRules.open(nodeFiles, directory, alerts);
    const tools = { files: nodeFiles, clock: systemClock, alerts, events: new EventHub() };
    const fencing = await openFencing(nodeFiles, directory, alerts);
    const triggering = { files: nodeFiles, clock: systemClock, random: systemRandom, alerts };
    const older = { files: nodeFiles, clock: systemClock, log: silentLog } as never;
    return {
      tests: await StoredTestRules.open(nodeFiles, directory, alerts),
      ...{ arrivals, drills: await openDrillStore(nodeFiles, directory, arrivals, alerts) },
      floor: await RetentionFloor.open(nodeFiles, directory, new Zones(), alerts),
      plans: await PlanStore.open(tools, directory),
      rehearsals: await RehearsalStore.open(nodeFiles, directory, alerts),
      reports: await openReportPolicy(nodeFiles, directory, alerts),
      triggers: await TriggerTokens.open({ ...triggering, dataDirectory: directory }),
      older: await OlderCopies.open(older, directory, alerts),
      fencing: new FencingActs({ fencing, audit } as never),
    };
  };
  const pathOf = (name: string) => join(directory, `${name}.json`);
  return { open, standing, audit, alerts, pathOf };
}

it('F5 a site starts beside such a record, says which one it is and what to do, until it can be read', async (t) => {
  const { open, standing, pathOf } = await site(t);
  for (const name of NAMES) await writeFile(pathOf(name), '{');
  await open();
  assert.deepEqual([...standing.keys()].toSorted(), NAMES.map((name) => `stored:${name}.json`).toSorted());
  for (const { code, hint, message } of standing.values()) {
    assert.equal(code, CORRUPT.code);
    assert.match(hint, CORRUPT.hint);
    assert.match(message, /\.json is not a valid/);
  }
  for (const name of NAMES) {
    await writeFile(pathOf(name), JSON.stringify({ record: name, version: 9, warmsite: '9' }));
  }
  await open();
  assert.ok(standing.size === NAMES.length, [...standing.keys()].join());
  // Of an older version, and without what that one had.
  for (const name of ['plans', 'arrivals']) {
    await writeFile(pathOf(name), JSON.stringify({ record: name, version: 1, warmsite: '0' }));
  }
  await open();
  assert.equal(standing.get('stored:plans.json')?.code, CORRUPT.code);
  assert.equal(standing.get('stored:arrivals.json')?.code, CORRUPT.code);
  for (const name of NAMES) await rm(pathOf(name));
  await open();
  assert.deepEqual([...standing], []);
});

it('F5 of a file that could not be read when the site started it is said that the site has to start again', async (t) => {
  const { open, standing, audit, pathOf } = await site(t);
  await mkdir(pathOf('floor'));
  const { floor } = await open();
  const said = {
    code: 'FILE_UNREADABLE',
    hint: /start the site again; until then changes of it are refused/,
  };
  const { code, hint } = standing.get('stored:floor.json')!;
  assert.equal(code, said.code);
  assert.match(hint, said.hint);
  await rmdir(pathOf('floor'));
  await assert.rejects(floor.change(audit, 'a', { calendar: null } as never), said);
});

it('F5 what people change is refused meanwhile, so that nothing is overwritten', async (t) => {
  const { open, audit, pathOf } = await site(t);
  for (const name of NAMES) await writeFile(pathOf(name), '{');
  const { tests, arrivals, drills, floor, plans, rehearsals, reports, fencing, triggers, older } =
    await open();
  const refused = [
    () => tests.change(audit, 'a', { mostRunning: 1 }),
    () => arrivals.change('m', undefined),
    () => drills.settings.pause(undefined, true),
    () => floor.change(audit, 'a', { calendar: null } as never),
    () => plans.put({ plan: 'shop', machines: { db: {} } }),
    async () => plans.need('shop'),
    () => rehearsals.remove('shop'),
    () => reports.change(() => ({})),
    () => fencing.change('a', { fencing: null }),
    () => triggers.create({ machineId: 'm', copyType: 'app' }),
    async () => triggers.need('t'),
    () => older.offer('m', 'north', []),
    () => older.withdraw('m'),
  ];
  for (const change of refused) await assert.rejects(change(), CORRUPT, String(change));
  // The site's own notes go on in memory, and a machine whose replica is removed is forgotten by what can be read.
  await drills.debts.settle([{ machineId: 'm', debt: { sinceMs: 1, afterSequence: 1 } }]);
  assert.equal(drills.debts.of('m')?.sinceMs, 1);
  await drills.forget('m');
  await arrivals.forget('m');
  await triggers.remove(() => true);
  for (const name of NAMES) assert.equal(await readFile(pathOf(name), 'utf8'), '{');
});

it('F5 what stands in for it meanwhile is shown to nobody as if somebody had said so, and holds inside', async (t) => {
  const { open, pathOf } = await site(t);
  for (const name of NAMES) await writeFile(pathOf(name), '{');
  const { tests, arrivals, drills, floor, plans, rehearsals, reports, triggers, older } = await open();
  const shown = [
    () => tests.said,
    () => arrivals.checkRead(),
    () => drills.settings.checkRead(),
    () => floor.view,
    () => new RecoveryPlans({ store: plans } as never).list(),
    () => rehearsals.checkRead(),
    () => triggers.list,
    () => older.list(),
    () => new ReportKeeper({ policy: reports } as never).policy,
    () => new FailoverActs({ testRules: tests } as never).showRules(),
  ];
  for (const show of shown) assert.throws(show, CORRUPT, String(show));
  const first = { machineId: 'm', disks: [] } as never;
  assert.deepEqual([triggers.isShown('t', 'x'), older.disksFor('north', 'm', first)], [false, undefined]);
  assert.deepEqual(
    [tests.rules.mostRunning, arrivals.machineIds, rehearsals.all, plans.plans, plans.find('shop')],
    [8, [], [], [], undefined],
  );
  assert.equal(new FailoverActs({ testRules: tests } as never).rules.mostRunning, 8);
});

it('F6 what the record might forbid is not done: no point goes, no report, and nothing passes as fenced', async (t) => {
  const { open, pathOf } = await site(t);
  for (const name of ['floor', 'report-policy', 'fencing']) await writeFile(pathOf(name), '{');
  const { floor, reports, fencing } = await open();
  const points = ['a', 'b'].map((pointId) => ({ statement: { pointId } }));
  assert.deepEqual(
    [...floor.reasons({ points } as unknown as Replica)],
    [
      ['a', ['floor']],
      ['b', ['floor']],
    ],
  );
  assert.equal(reports.value.keepTestsMs, undefined);
  assert.throws(() => fencing.need(), CORRUPT);
  assert.match((await fencing.show()).lack!, /fencing\.json/);
});

function rehearsing(
  o: Pick<ConstructorParameters<typeof PlanRehearsals>[0], 'rehearsals' | 'store' | 'alerts'>,
): ConstructorParameters<typeof PlanRehearsals>[0] {
  return {
    ...{ ...o, clock: systemClock, log: silentLog },
    begin: () => assert.fail('begun'),
    inEarnest: async () => ({}),
    jobs: () => ({ underWay: () => [] }),
  };
}

/** A loop that has had its first look. */
async function looked(loop: Pick<PlanRehearsals, 'begin' | 'close'>): Promise<void> {
  loop.begin();
  for (let i = 0; i < 50; i++) await new Promise(setImmediate);
  await loop.close();
}

it('F5 what was said of rehearsals and drills stands while it cannot be read which there are', async (t) => {
  const { open, alerts, pathOf } = await site(t);
  await (await open()).plans.put({ plan: 'shop', machines: { db: {} } });
  for (const name of ['plan-rehearsals', 'drills']) await writeFile(pathOf(name), '{');
  const { plans, rehearsals, drills } = await open();
  const cleared: string[] = [];
  const heard: AlertSink = { ...alerts, clear: (key) => void cleared.push(key) };
  await looked(new PlanRehearsals(rehearsing({ rehearsals, store: plans, alerts: heard })));
  const record = { machineId: 'm', machineName: 'db' };
  await looked(
    new Drills({
      ...{ files: nodeFiles, clock: systemClock, log: silentLog, zones: new Zones(), alerts: heard },
      ...{ ...drills, isUrgent: () => false, keeper: { verdicts: async () => [] } },
      replicas: { list: () => [{ record } as Replica] },
      jobs: () => ({ ofMachine: () => [], underWay: () => [], start: () => assert.fail('begun') }),
    }),
  );
  assert.deepEqual(
    cleared.filter((key) => /^(plan-rehearsal|drill-.*):/.test(key)),
    [],
  );
});

it('F5 no error is the answer to rehearsals that were ended: while the plans cannot be read they are not', async (t) => {
  const { open, audit, alerts, pathOf } = await site(t);
  const times = { kind: 'interval', everyMs: 3_600_000 } as const;
  await (await open()).rehearsals.put({ plan: 'shop', times, withinMs: 3_600_000, sinceMs: 1 });
  const kept = await readFile(pathOf('plan-rehearsals'), 'utf8');
  await writeFile(pathOf('plans'), '{');
  const { plans: store, rehearsals } = await open();
  const loop = new PlanRehearsals(rehearsing({ rehearsals, store, alerts }));
  const acts = new RehearsalActs({
    ...{ store, rehearsals, loop, audit, clock: systemClock },
    zones: new Zones(),
  });
  await assert.rejects(acts.end('a', 'shop'), CORRUPT);
  assert.equal(await readFile(pathOf('plan-rehearsals'), 'utf8'), kept);
});

it('F5 rehearsals are kept whose plans cannot be read', async (t) => {
  const { open, alerts, pathOf } = await site(t);
  const before = await open();
  await before.rehearsals.put({
    ...{ plan: 'shop', times: { kind: 'interval', everyMs: 3_600_000 }, withinMs: 3_600_000, sinceMs: 1 },
  });
  await writeFile(pathOf('plans'), '{');
  const { plans, rehearsals } = await open();
  await looked(new PlanRehearsals(rehearsing({ rehearsals, store: plans, alerts })));
  assert.deepEqual(
    rehearsals.all.map(({ plan }) => plan),
    ['shop'],
  );
});
