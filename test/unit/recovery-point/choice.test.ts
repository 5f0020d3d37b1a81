import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DEFAULT_WISH,
  latestOf,
  ranked,
  type SelectionCandidate,
  satisfies,
  shortlist,
} from '../../../src/recovery-point/index.ts';

function candidate(
  sequence: number,
  consistency: 'crash' | 'application',
  cutAtMs: number,
  proven = false,
): SelectionCandidate {
  return { pointId: `p${sequence}`, sequence, consistency, cutAtMs, boot: proven ? 'passed' : 'not-tried' };
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

test('S0.7 the latest crash-consistent point is the newest of either type', () => {
  const list = [candidate(1, 'crash', 0), candidate(2, 'application', 1), candidate(3, 'crash', 2)];
  assert.equal(latestOf(list, 'crash')?.pointId, 'p3');
  assert.equal(latestOf(list.slice(0, 2), 'crash')?.pointId, 'p2');
  assert.equal(latestOf(list, 'application')?.pointId, 'p2');
  assert.equal(latestOf(list.slice(0, 1), 'application'), undefined);
});

test('S0.18 a point that is proven to boot leads while the newer ones hold little more, and says why', () => {
  const list = [
    candidate(1, 'application', 0, true),
    candidate(2, 'crash', 20_000, true),
    candidate(3, 'application', 30_000),
    candidate(4, 'crash', 45_000),
  ];
  const order = (points: SelectionCandidate[]) => ranked(points, DEFAULT_WISH).map(({ pointId }) => pointId);
  assert.deepEqual(order(list), ['p2', 'p4', 'p1', 'p3']);
  assert.equal(ranked(list, DEFAULT_WISH)[0]!.reason, 'proven to boot and only 25.0 s older than the newest');
  assert.deepEqual(order([...list, candidate(5, 'crash', 51_000)])[0], 'p5', 'too much would be lost');
  assert.deepEqual(order([candidate(1, 'application', 0, true), candidate(2, 'crash', 40_000)]), [
    'p1',
    'p2',
  ]);
});

test('S0.18 a point that failed to boot is tried after all the others', () => {
  const failed = { ...candidate(3, 'application', 50_000), boot: 'failed' as const };
  const list = [candidate(1, 'crash', 0), candidate(2, 'crash', 5_000), failed];
  const choices = ranked(list, DEFAULT_WISH);
  assert.deepEqual(
    choices.map(({ pointId }) => pointId),
    ['p2', 'p1', 'p3'],
  );
  assert.match(choices[0]!.reason, /no boot has failed/);
  assert.equal(ranked([failed], DEFAULT_WISH)[0]?.pointId, 'p3', 'better than none');
});

test('S0.18 order is by sequence: a clock that was put back makes no older point lead by its age', () => {
  const list = [candidate(1, 'crash', 90_000_000), candidate(2, 'crash', 1000)];
  assert.deepEqual(
    ranked(list, DEFAULT_WISH).map(({ pointId }) => pointId),
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
  const proven = { ...DEFAULT_WISH, provenOnly: true };
  assert.deepEqual(
    ranked([candidate(1, 'crash', 0, true), candidate(2, 'application', 1000)], proven).map(
      ({ pointId }) => pointId,
    ),
    ['p1'],
  );
});

test('S0.18 of points that nobody has seen boot not all are tried before one that is proven', () => {
  const young = [4, 5, 6, 7].map((sequence) => candidate(sequence, 'crash', sequence * 60_000));
  const list = [
    candidate(1, 'application', 0, true),
    candidate(2, 'crash', 1000, true),
    candidate(3, 'application', 2000),
    ...young,
  ];
  const order = (attemptsMax: number, among = list) =>
    shortlist(among, DEFAULT_WISH, attemptsMax).map(({ pointId }) => pointId);
  assert.deepEqual(order(3), ['p7', 'p6', 'p1']);
  assert.match(shortlist(list, DEFAULT_WISH, 3).at(-1)!.reason, /proven to boot/);
  assert.deepEqual(order(1), ['p1'], 'a single attempt is one that is known to come up');
  assert.deepEqual(order(3, young), ['p7', 'p6', 'p5'], 'where none is proven the newest are tried');
  const near = [...list, candidate(8, 'crash', 7 * 60_000 + 100, true)];
  assert.deepEqual(order(3, near), ['p8', 'p7', 'p6'], 'one of the first is proven');
  const failed: SelectionCandidate = { ...candidate(9, 'application', 500_000), boot: 'failed' };
  assert.deepEqual(order(3, [...list, failed]), ['p7', 'p6', 'p1']);
  const wish = { ...DEFAULT_WISH, atLeast: 'application' as const };
  assert.deepEqual(
    shortlist(list, wish, 3).map(({ pointId }) => pointId),
    ['p1', 'p3'],
  );
});
