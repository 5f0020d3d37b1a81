import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { SignedReport } from '../../../src/api/index.ts';
import { ReportRemovals } from '../../../src/control/reports/report-removals.ts';
import { expiredReports, factsOf, type ReportFacts } from '../../../src/control/reports/report-retention.ts';
import type { FileSystem } from '../../../src/lib/files.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { bornAtMs, newId, systemRandom } from '../../../src/lib/random.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { sampleReport } from '../../support/sample-report.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const NOW_MS = 1_000;
const KEEP_MS = 100;
/** That end one removal. */
const STEPS_OF_OPEN = 3;

/** Of a test of one machine that is long past, and of a point that has gone. */
function old(reportId: string, o: Partial<ReportFacts> = {}): ReportFacts {
  return {
    ...{ reportId, isTest: true, about: 'machine m', machineId: 'm', hasPassed: true, endedAtMs: 10 },
    ...{ pointIds: ['gone'], names: [], ...o },
  };
}

function expired(...reports: ReportFacts[]): string[] {
  const hasPoint = (machineId: string, pointId: string) => machineId === 'm' && pointId === 'here';
  return expiredReports(reports, { nowMs: NOW_MS, keepTestsMs: KEEP_MS, hasPoint }).sort();
}

describe('how long reports are kept', () => {
  it('F9 tests go when they are too old; the newest of a machine and the newest that passed stay', () => {
    const newest = old('newest', { endedAtMs: 30, hasPassed: false });
    const passed = old('passed', { endedAtMs: 20 });
    assert.deepEqual(expired(newest, passed, old('a'), old('b', { hasPassed: false })), ['a', 'b']);
    // Whichever comes first in the directory.
    assert.deepEqual(expired(old('a'), passed, newest), ['a']);
    assert.deepEqual(expired(newest), []);
    // Another machine's newest is no machine's but its own.
    assert.deepEqual(expired(newest, old('other', { about: 'machine n', machineId: 'n' })), []);
    const young = old('young', { endedAtMs: NOW_MS - KEEP_MS });
    assert.deepEqual(expired(young, old('younger', { endedAtMs: NOW_MS }), old('a')), ['a']);
  });

  it('F9 what has changed something stays, and so does what proves a point that is there', () => {
    const newest = old('newest', { endedAtMs: 30 });
    assert.deepEqual(expired(newest, old('failover', { isTest: false })), []);
    assert.deepEqual(expired(newest, old('proof', { pointIds: ['gone', 'here'] })), []);
    // A report of no test is no newer test.
    assert.deepEqual(expired(old('failover', { isTest: false, endedAtMs: 40 }), old('only')), []);
  });

  it('F9 what a rehearsal names stays as long as the rehearsal, and goes with it', () => {
    const newest = old('newest', { endedAtMs: 50 });
    const plan = (reportId: string, endedAtMs: number, names: string[]): ReportFacts => {
      const { machineId: _none, ...facts } = old(reportId, { about: 'plan shop', endedAtMs, names });
      return { ...facts, pointIds: [] };
    };
    const rehearsals = [plan('first', 20, ['a']), plan('second', 40, ['b'])];
    assert.deepEqual(expired(newest, ...rehearsals, old('a'), old('b')), ['a', 'first']);
  });

  it('F9 a report says what it is: a run of a plan in isolation is a test, any other is none', () => {
    const facts = (change: Parameters<typeof sampleReport>[0]) =>
      factsOf(JSON.parse(sampleReport(change).toString()) as SignedReport);
    const test = facts({});
    assert.deepEqual([test.isTest, test.hasPassed, test.pointIds.length], [true, true, 1]);
    assert.equal(test.about, `machine ${test.machineId}`);
    const plan = { name: 'shop', runId: test.reportId, documentSha256: 'b'.repeat(64) };
    const report = { reportId: test.reportId, sha256: 'c'.repeat(64) };
    const steps = [{ machine: 'db', state: 'done', report }];
    const rehearsal = facts({ change: { kind: 'plan', plan: { ...plan, mode: 'test', steps } } });
    assert.deepEqual(
      [rehearsal.isTest, rehearsal.about, rehearsal.machineId, rehearsal.names],
      [true, 'plan shop', undefined, [test.reportId]],
    );
    for (const mode of ['unplanned', 'take', 'cede'])
      assert.equal(facts({ change: { kind: 'plan', plan: { ...plan, mode, steps } } }).isTest, false);
    for (const kind of ['unplanned', 'take', 'cede', 'restart', 'forward', 'adopt', 'undo'] as const)
      assert.equal(facts({ change: { kind } }).isTest, false, kind);
    assert.equal(facts({ change: { kind: 'drill' } }).isTest, true);
  });

  it('F9 a removal that is cut short at any step is either none or ended at the next start', async (t) => {
    const directory = join(await temporaryDirectory(t), 'reports');
    await mkdir(directory);
    const id = newId(new FakeClock(), systemRandom);
    const path = join(directory, `${id}.json`);
    for (let steps = 0; ; steps++) {
      await writeFile(path, 'a report');
      const dying = new ReportRemovals({ files: endingAfter(steps), log: silentLog }, directory);
      const isThrough = await dying
        .begin(id)
        .then(() => dying.end(id))
        .then(
          () => true,
          () => false,
        );
      const isDecided = dying.has(id);
      const next = new ReportRemovals({ files: nodeFiles, log: silentLog }, directory);
      await next.open();
      const isThere = (await readdir(directory)).includes(`${id}.json`);
      assert.ok(next.has(id) !== isThere, `after ${steps} steps`);
      if (isDecided) assert.ok(!isThere, `after ${steps} steps it was said to go, and is there`);
      await next.forgetBut(new Set([id]));
      assert.equal(next.has(id), !isThere, 'it could be made up again');
      // What cannot be written stays, and is no reason to end.
      const poor = new ReportRemovals({ files: endingAfter(STEPS_OF_OPEN), log: silentLog }, directory);
      await poor.open();
      await poor.forgetBut(new Set());
      assert.equal(poor.has(id), !isThere);
      await next.forgetBut(new Set());
      assert.ok(!(await readdir(directory)).includes(`${id}.json.removed`));
      if (isThrough) break;
      assert.ok(steps < 50);
    }
  });

  it('an id tells when it was made', () => {
    const clock = new FakeClock();
    assert.equal(bornAtMs(newId(clock, systemRandom)), clock.wallMs());
  });
});

/** Files of a process that is gone after so many steps. */
function endingAfter(steps: number): FileSystem {
  let left = steps;
  const step = <A extends readonly unknown[], R>(work: (...args: A) => Promise<R>) => {
    return async (...args: A): Promise<R> => {
      if (left === 0) throw new Error('the process is gone');
      left -= 1;
      return work(...args);
    };
  };
  return {
    ...nodeFiles,
    open: step(nodeFiles.open),
    remove: step(nodeFiles.remove),
    rename: step(nodeFiles.rename),
    syncDirectory: step(nodeFiles.syncDirectory),
  };
}
