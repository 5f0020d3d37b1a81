import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DEFAULT_WISH,
  ranked,
  type SelectionCandidate,
  satisfies,
} from '../../../src/recovery-point/index.ts';

function candidate(
  sequence: number,
  consistency: 'crash' | 'application',
  cutAtMs: number,
): SelectionCandidate {
  return { pointId: `p${sequence}`, sequence, consistency, cutAtMs, proven: false };
}

test('S0.7 an application-consistent point counts also as a crash-consistent one, not the other way round', () => {
  assert.ok(satisfies('application', 'crash'));
  assert.ok(satisfies('application', 'file-system'));
  assert.ok(!satisfies('crash', 'application'));
});

test('S0.18 the newest point leads, unless an application-consistent one is only a little older', () => {
  const near = [
    candidate(1, 'application', 0),
    candidate(2, 'application', 50_000),
    candidate(3, 'crash', 55_000),
  ];
  assert.deepEqual(
    ranked(near, DEFAULT_WISH).map(({ pointId }) => pointId),
    ['p2', 'p3', 'p1'],
  );
  const far = [candidate(1, 'application', 0), candidate(2, 'crash', 55_000)];
  assert.deepEqual(
    ranked(far, DEFAULT_WISH).map(({ pointId }) => pointId),
    ['p2', 'p1'],
  );
});

test('S0.18 a wish for consistency leaves out what falls short of it', () => {
  const list = [candidate(1, 'application', 0), candidate(2, 'crash', 1000)];
  const wish = { ...DEFAULT_WISH, atLeast: 'application' as const };
  assert.deepEqual(
    ranked(list, wish).map(({ pointId }) => pointId),
    ['p1'],
  );
  assert.deepEqual(ranked([], wish), []);
});
