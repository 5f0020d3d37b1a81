import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeRecord } from '../../../src/lib/records.ts';
import { MISSED_MAX, missedBy, takingIn } from '../../../src/replication/missed.ts';
import { CUT_RECORD, type CutRecord } from '../../../src/replication/records.ts';

function cut(ordinal: number): CutRecord {
  return {
    ...{ cutId: `cut-${ordinal}`, ordinal, state: 'sealed', copyType: 'crash', consistency: 'crash' },
    ...{ cutAtMs: ordinal * 10_000, pauseMs: 1, configuration: {}, sealed: {}, tips: {}, merged: false },
    missed: [],
  };
}

test('S0.11 a target may be away for months: of the cuts that are missed the newest are listed, the others counted', () => {
  const days = 40;
  const last = (days * 86_400) / 10;
  let waiting = cut(1);
  for (let ordinal = 2; ordinal <= last; ordinal++) {
    const next = cut(ordinal);
    waiting = { ...next, ...takingIn(waiting, next, 'not acknowledged in time') };
  }
  assert.equal(waiting.missed.length, MISSED_MAX);
  assert.equal(waiting.missed.at(-1)?.pointId, `cut-${last - 1}`);
  assert.equal(waiting.missed.length + waiting.unlisted!, last - 1);
  assert.ok(encodeRecord(CUT_RECORD, waiting).length < 1024 * 1024);
  assert.ok(CUT_RECORD.accepts(waiting));

  const acknowledged = { pointId: 'cut-0', ordinal: 0, sequence: 1, statementDigest: 'd', atMs: 0 };
  const [oldest, ...others] = missedBy({ siteId: 's', acknowledged, session: null }, [waiting], waiting);
  assert.equal(oldest?.reason, `not acknowledged in time (as ${waiting.unlisted} before it)`);
  assert.ok(others.every(({ reason }) => reason === 'not acknowledged in time'));
});

test('S0.11 a cut that takes in another one names it, however many it names already', () => {
  const full = { ...cut(2000), missed: Array.from({ length: MISSED_MAX }, (_, index) => missed(index)) };
  const taken = takingIn(
    { ...cut(1999), missed: [missed(5000)], unlisted: 7 },
    { ...full, unlisted: 3 },
    'why',
  );
  assert.ok(taken.missed.some(({ pointId }) => pointId === 'cut-1999'));
  assert.equal(taken.unlisted, 11);
});

function missed(index: number) {
  return { pointId: `older-${index}`, copyType: 'crash', cutAtMs: index, reason: 'why' };
}
