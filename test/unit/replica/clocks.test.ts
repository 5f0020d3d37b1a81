/** When a point was cut, on the clock of the site that receives it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cutAtHere } from '../../../src/replica/publication.ts';

const DAY_MS = 24 * 3600 * 1000;
const NOW_MS = Date.UTC(2026, 0, 5);

/** On clocks of which the sender's is ahead by `aheadMs`. */
function point(aheadMs: number, ageMs: number) {
  return { cutAtMs: NOW_MS + aheadMs - ageMs, skewMs: aheadMs, nowMs: NOW_MS };
}

test('a point that was cut a minute ago is a minute old, also by a clock that is ten minutes off', () => {
  for (const minutes of [10, -10]) {
    assert.equal(cutAtHere(point(minutes * 60_000, 60_000)), NOW_MS - 60_000);
  }
});

test('whatever the clocks say, the age of a point is what has passed since it was cut', () => {
  const aheadMs = fc.double({ min: -DAY_MS, max: DAY_MS, noNaN: true });
  const ageMs = fc.nat(DAY_MS);
  fc.assert(
    fc.property(aheadMs, ageMs, (ahead, age) => {
      assert.equal(cutAtHere(point(ahead, age)), NOW_MS - age);
    }),
  );
});

test('a clock that was set between cut and offer makes no point younger than its publication, and none older than time', () => {
  const time = fc.integer({ min: -2 * NOW_MS, max: 2 * NOW_MS });
  fc.assert(
    fc.property(time, time, (cutAtMs, skewMs) => {
      const atMs = cutAtHere({ cutAtMs, skewMs, nowMs: NOW_MS });
      assert.ok(Number.isSafeInteger(atMs) && atMs >= 0 && atMs <= NOW_MS);
    }),
  );
});
