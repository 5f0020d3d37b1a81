import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFailure } from '../../../src/lib/errors.ts';
import type { OfferConflict } from '../../../src/replica/index.ts';
import { conflictFailure } from '../../../src/replication/conflict.ts';
import type { SessionConflict } from '../../../src/replication/index.ts';

const CONFLICTS: readonly (SessionConflict | OfferConflict)[] = [
  { why: 'fenced', ourEpoch: 1, theirEpoch: 2 },
  { why: 'epoch', held: 2, offered: 1 },
  { why: 'target-behind', acknowledged: 'a', newest: null },
  { why: 'target-behind', acknowledged: 'a', newest: 'b' },
  { why: 'unknown-point', newest: 'b' },
  { why: 'parent', newest: 'b', offered: null },
  { why: 'sequence', expected: 3, offered: 4 },
  { why: 'disks', detail: 'disk root has another size' },
];

test('a conflict is told in words, with its evidence beside them and never as JSON', () => {
  for (const evidence of CONFLICTS) {
    const failure = conflictFailure('web', evidence);
    assert.ok(isFailure(failure, 'REPLICATION_CONFLICT'));
    assert.match(failure.message, new RegExp(`^web: ${evidence.why}: [^{}]+$`));
    assert.deepEqual({ ...failure.context }, { machine: 'web', ...evidence });
    assert.match(failure.hint, /\.$/);
  }
});

test('who was fenced, or lost the replica, is told the way out', () => {
  const hintOf = (evidence: SessionConflict | OfferConflict) => {
    const failure = conflictFailure('web', evidence);
    assert.ok(isFailure(failure));
    return failure.hint;
  };
  assert.match(hintOf({ why: 'fenced', ourEpoch: 1, theirEpoch: 2 }), /brought up at the other site/);
  assert.equal(
    hintOf({ why: 'epoch', held: 2, offered: 1 }),
    hintOf({ why: 'fenced', ourEpoch: 1, theirEpoch: 2 }),
  );
  assert.match(hintOf({ why: 'target-behind', acknowledged: 'a', newest: null }), /vm unprotect web/);
  assert.match(hintOf({ why: 'unknown-point', newest: 'b' }), /vm remove web/);
});
