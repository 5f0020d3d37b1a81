import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { isAllowed } from '../../../scripts/licences.ts';
import { RunDirectory } from '../../../scripts/run-directory.ts';
import { hasPassed, resultsDocument, withCounts } from '../../../scripts/test-results.ts';
import { exitOf } from '../../../src/lib/processes.ts';
import { sizeLine } from '../../support/size.ts';
import { startedProcess } from '../../support/started.ts';

test('a licence expression is allowed when allowed licences alone satisfy it', () => {
  for (const allowed of [
    'MIT',
    'MIT OR Apache-2.0',
    'GPL-3.0-only OR MIT',
    '(MIT AND ISC)',
    '(MIT OR X) AND ISC',
  ]) {
    assert.ok(isAllowed(allowed), allowed);
  }
  const forbidden = [
    '',
    'GPL-3.0-only',
    'MIT AND GPL-3.0-only',
    'SEE LICENSE IN file',
    '(MIT',
    'MIT)',
    'MIT ISC',
    'OR',
  ];
  for (const expression of forbidden) assert.ok(!isAllowed(expression), expression);
});

test('a reduced count is printed with the full one', () => {
  const counts = { what: 'S0.10: kills', normal: 10, full: 200 };
  assert.equal(sizeLine(counts, 'normal'), 'S0.10: 10 kills (full: 200)');
  assert.equal(sizeLine(counts, 'full'), 'S0.10: 200 kills');
  assert.equal(sizeLine({ what: 'seeds', normal: 5, full: 5 }, 'normal'), '5 seeds');
});

const PASSED = { durationMs: 1500, passed: true };
const RESULT = {
  ...{ ...PASSED, commit: 'abc', machine: 'M', date: '2030-01-31' },
  counts: ['S0.10: 200 kills', 'S0.1: 3 disks'],
  tests: [
    { ...PASSED, name: 'S0.10 S0.2 nothing is lost', counts: ['S0.2: 7 ways'] },
    { name: 'no capability', durationMs: 1, passed: false },
  ],
};

test('a count goes to the test that it was printed in, and to all of the file where it was printed in none', () => {
  const named = (name: string) => ({ ...PASSED, name });
  const tests = ['S0.10 S0.11 whole', 'S0.10 part', 'S0.12 other'].map(named);
  const inPart = { test: 'S0.10 S0.11 whole > S0.10 part > without a capability' };
  const { tests: counted, counts } = withCounts(tests, [
    { ...inPart, line: 'S0.10: 200 kills' },
    { ...inPart, line: 'S0.11: 3 cuts' },
    { ...inPart, line: 'S0.12: 4 disks' },
    { line: 'S0.10: 5 lives' },
  ]);
  assert.deepEqual(
    counted.map(({ counts: own }) => own),
    [['S0.11: 3 cuts'], ['S0.10: 200 kills'], undefined],
  );
  assert.deepEqual(counts, ['S0.12: 4 disks', 'S0.10: 5 lives']);
});

test('the results document has a row for every capability that a test names, and tells what was never run', () => {
  const files = { 'test/a.test.ts': RESULT, 'test/gone.test.ts': RESULT };
  const document = resultsDocument({ files }, ['test/a.test.ts', 'test/b.test.ts']);
  const rows = document.split('\n').filter((line) => line.startsWith('| S'));
  assert.deepEqual(rows, [
    '| S0.2 | S0.10 S0.2 nothing is lost (test/a.test.ts) | 7 ways | 1.5 s | passed | abc |',
    '| S0.10 | S0.10 S0.2 nothing is lost (test/a.test.ts) | 200 kills | 1.5 s | passed | abc |',
  ]);
  assert.match(document, /Tests without a capability: 0 passed, 1 failed/);
  assert.match(document, /Never run at full size: test\/b\.test\.ts\./);
  assert.match(document, /^- abc, 2030-01-31: M$/m);
});

test('a file is run again at full size unless it has passed on the very commit', () => {
  assert.ok(hasPassed(RESULT, { id: 'abc', modified: false }));
  assert.ok(!hasPassed(undefined, { id: 'abc', modified: false }));
  assert.ok(!hasPassed(RESULT, { id: 'abd', modified: false }));
  assert.ok(!hasPassed(RESULT, { id: 'abc', modified: true }));
  assert.ok(!hasPassed({ ...RESULT, passed: false }, { id: 'abc', modified: false }));
});

test('what still runs out of the directory of a test run is ended and named; the directory goes', async (t) => {
  const directory = RunDirectory.make();
  t.after(() => directory.clear(0));
  const forever = ['-e', 'setInterval(() => undefined, 1000)', '--', join(directory.path, 'socket')];
  const left = await startedProcess(t, process.execPath, forever);
  const other = await startedProcess(t, process.execPath, [
    ...forever.slice(0, 3),
    `${directory.path}er/socket`,
  ]);
  assert.deepEqual(await directory.clear(0), [`${process.execPath} (${left.pid})`]);
  assert.equal((await exitOf(left)).signal, 'SIGKILL');
  assert.equal(other.exitCode ?? other.signalCode, null, 'whoever names another directory is left alone');
  await assert.rejects(stat(directory.path), { code: 'ENOENT' });
  assert.deepEqual(await directory.clear(), []);
});
