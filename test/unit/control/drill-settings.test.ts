import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { ArrivalRules } from '../../../src/control/drills/arrival-rules.ts';
import { DrillDebts } from '../../../src/control/drills/drill-debts.ts';
import { DrillSettings } from '../../../src/control/drills/drill-settings.ts';
import { openDrillStore } from '../../../src/control/drills/drill-store.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const WITHIN = { proveWithinMs: 3_600_000 };
const DAY_MS = 86_400_000;

test('F6 the word for a machine counts before that for all, also when it is «none», and all of it outlives the process', async (t) => {
  const directory = await temporaryDirectory(t);
  const settings = await DrillSettings.open(nodeFiles, directory);
  assert.deepEqual(settings.of('a'), { policy: null, from: 'nobody' });
  await settings.changeSite(WITHIN);
  await settings.change('b', null);
  await settings.change('c', { ...WITHIN, copyTypes: ['app'] });
  await settings.pause('b', true);
  await settings.changeBudget({ cpuPercent: 100, atOnce: 3 });
  await settings.changeBudget({ cpuWeight: 20 });
  const again = await DrillSettings.open(nodeFiles, directory);
  for (const known of [settings, again]) {
    assert.deepEqual(known.of('a'), { policy: WITHIN, from: 'site' });
    assert.deepEqual(known.of('b'), { policy: null, from: 'machine' });
    assert.deepEqual(known.of('c').policy?.copyTypes, ['app']);
    assert.deepEqual([known.isMachinePaused('a'), known.isMachinePaused('b')], [false, true]);
    assert.deepEqual([known.budget.cpuPercent, known.budget.cpuWeight, known.budget.atOnce], [100, 20, 3]);
  }
  await again.changeBudget({ cpuPercent: null });
  assert.equal(again.budget.cpuPercent, undefined);
  assert.equal(again.budget.cpuWeight, 20);
  await again.forget('b');
  assert.deepEqual([again.of('b').from, again.isMachinePaused('b')], ['site', false]);
  await again.changeSite(undefined);
  assert.equal(again.of('a').policy, null);
});

test('F6 what an earlier version knew as tests of points that arrive are drills, and what it prepared goes on', async (t) => {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'arrivals.json');
  const prepare = {
    kind: 'prepare',
    programs: [{ name: 'revert', command: '/revert', arguments: [], limitMs: 1000 }],
  };
  const probes = [{ kind: 'agent', limitMs: 5000 }];
  const rules = [
    { machineId: 'a', rule: { work: { kind: 'test' } } },
    { machineId: 'b', rule: { copyTypes: ['app'], work: { kind: 'test', probes } } },
    { machineId: 'c', rule: { work: prepare } },
    { machineId: 'd', rule: { work: { kind: 'test' } } },
  ];
  const before = JSON.stringify({ record: 'arrivals', version: 1, warmsite: '0', rules });
  await writeFile(path, before);
  const known = await DrillSettings.open(nodeFiles, directory);
  await known.change('d', null);
  const store = async () => {
    const arrivals = await ArrivalRules.open(nodeFiles, directory);
    return { arrivals, ...(await openDrillStore(nodeFiles, directory, arrivals)) };
  };
  const check = ({ arrivals, settings }: Awaited<ReturnType<typeof store>>) => {
    assert.deepEqual(settings.of('a').policy, { others: {}, proveWithinMs: DAY_MS });
    assert.deepEqual(settings.of('b').policy, { copyTypes: ['app'], probes, proveWithinMs: DAY_MS });
    assert.equal(settings.of('c').from, 'nobody');
    assert.equal(settings.of('d').policy, null, 'what a person has said since counts');
    assert.deepEqual(arrivals.machineIds, ['c']);
    assert.deepEqual(arrivals.of('c')?.work, prepare);
  };
  check(await store());
  const { version, drills } = JSON.parse(await readFile(path, 'utf8'));
  assert.deepEqual([version, drills], [2, undefined]);
  check(await store());
  // The process ended between the two records: it is done once more.
  await writeFile(path, before);
  check(await store());
});

test('F6 debts outlive the process, and nothing is written where nothing has changed', async (t) => {
  const directory = await temporaryDirectory(t);
  let written = 0;
  const counting = {
    ...nodeFiles,
    rename: (from: string, to: string) => {
      written += 1;
      return nodeFiles.rename(from, to);
    },
  };
  const debts = await DrillDebts.open(counting, directory);
  const owed = { sinceMs: 12.5, afterSequence: 3 };
  await debts.settle([{ machineId: 'a', debt: owed }, { machineId: 'b' }]);
  await debts.settle([{ machineId: 'a', debt: { ...owed } }]);
  await debts.settle([]);
  assert.equal(written, 1);
  const again = await DrillDebts.open(nodeFiles, directory);
  assert.equal(again.of('a')?.sinceMs, 12.5);
  assert.equal(again.of('b'), undefined);
  await debts.forget('a');
  assert.equal((await DrillDebts.open(nodeFiles, directory)).of('a'), undefined);
});
