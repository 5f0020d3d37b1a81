import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAllowed } from '../../../scripts/licences.ts';
import { resultsDocument } from '../../../scripts/test-results.ts';
import { sizeLine } from '../../support/size.ts';

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

test('the results document has a row for every capability that a test names', () => {
  const passed = { durationMs: 1500, passed: true };
  const document = resultsDocument(
    {
      commit: 'abc',
      files: {
        'test/a.test.ts': {
          passed: true,
          durationMs: 3000,
          counts: ['S0.10: 200 kills', 'S0.1: 3 disks'],
          tests: [
            { ...passed, name: 'S0.10 S0.2 nothing is lost' },
            { name: 'no capability', durationMs: 1, passed: false },
          ],
        },
      },
    },
    {
      machine: { processor: 'P', cores: 2, memoryGib: 4, kernel: 'K', node: 'N', qemu: 'Q' },
      commit: { id: 'abc', modified: false },
      date: '2030-01-31',
    },
  );
  const rows = document.split('\n').filter((line) => line.startsWith('| S'));
  assert.deepEqual(rows, [
    '| S0.2 | S0.10 S0.2 nothing is lost (test/a.test.ts) |  | 1.5 s | passed |',
    '| S0.10 | S0.10 S0.2 nothing is lost (test/a.test.ts) | 200 kills | 1.5 s | passed |',
  ]);
  assert.match(document, /Tests without a capability: 0 passed, 1 failed/);
});
