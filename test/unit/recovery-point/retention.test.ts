import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ArrivedPoint,
  checkFloor,
  keptByFloor,
  type RetentionCandidate,
  type RetentionPolicy,
  retentionOf,
  Zones,
} from '../../../src/recovery-point/index.ts';
import { placesOf } from '../../../src/recovery-point/retention-policy.ts';

const zones = new Zones();
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const START_MS = Date.parse('2026-01-01T00:00:00Z');

/**
 * «a» application-consistent, «c» crash-consistent, «n» nightly, «d» an app copy that fell short; a capital one is proven, «!»
 * held, «*» in use. The oldest first.
 */
function points(notation: string): RetentionCandidate[] {
  return (notation.match(/[acnd][!*]*/gi) ?? []).map((text, index) => {
    const letter = text[0]!.toLowerCase();
    return {
      ...at(index, START_MS + index * 1000),
      copyType: letter === 'c' ? 'crash' : letter === 'n' ? 'nightly' : 'app',
      degraded: letter === 'd',
      proven: text[0] !== letter,
      ...(text.includes('!') ? { hold: {} } : {}),
      inUse: text.includes('*'),
    };
  });
}

function at(index: number, cutAtMs: number): RetentionCandidate {
  return {
    ...{ pointId: `p${index + 1}`, sequence: index + 1, copyType: 'crash', degraded: false },
    ...{ cutAtMs, cutAtHereMs: cutAtMs, proven: false, inUse: false },
  };
}

function keptOf(candidates: readonly RetentionCandidate[], policy: RetentionPolicy): string {
  return retentionOf(candidates, policy, zones)
    .filter(({ reasons }) => reasons.length > 0)
    .map(({ pointId }) => pointId)
    .join(' ');
}

function kept(notation: string, crash: number, app: number): string {
  return keptOf(points(notation), { types: { crash, app } });
}

test('S0.16 a policy of four and two holds exactly those', () => {
  assert.equal(kept('cccacccaccac', 4, 2), 'p7 p8 p9 p10 p11 p12');
});

test('S0.16 a point takes no place of another type', () => {
  assert.equal(kept('ccaaa', 2, 1), 'p1 p2 p5');
  assert.equal(keptOf(points('nccnccnc'), { types: { crash: 1, nightly: 2 } }), 'p4 p7 p8');
});

test('S0.16 a copy that fell short of its type takes no place from one that did not', () => {
  assert.equal(kept('aacddd', 1, 2), 'p1 p2 p6');
});

test('S0.16 newest, newest proven, held and used points stay whatever the policy says, each with its reason', () => {
  assert.equal(kept('C!cCc*ccc', 0, 0), 'p1 p3 p4 p7');
  const verdicts = retentionOf(points('C!cCc*ccc'), { types: {} }, zones);
  assert.deepEqual(
    verdicts.map(({ reasons }) => reasons.join('+')),
    ['held', '', 'newest-proven', 'in-use', '', '', 'newest'],
  );
});

/** A point every so often, from the first of January 2026. */
function series(count: number, everyMs: number): RetentionCandidate[] {
  return Array.from({ length: count }, (_, index) => at(index, START_MS + index * everyMs));
}

function timesKept(candidates: readonly RetentionCandidate[], policy: RetentionPolicy): string[] {
  const verdicts = retentionOf(candidates, policy, zones);
  return candidates
    .filter((_, index) => verdicts[index]!.reasons.length > 0)
    .map(({ cutAtMs }) => new Date(cutAtMs).toISOString().slice(0, 16));
}

test('S0.16 the calendar keeps the newest of so many hours, days, weeks, months and years', () => {
  const list = series(24 * 70, HOUR_MS);
  const of = (calendar: object) => timesKept(list, { types: {}, calendar: { zone: 'UTC', ...calendar } });
  assert.deepEqual(of({ daily: 3 }), ['2026-03-09T23:00', '2026-03-10T23:00', '2026-03-11T23:00']);
  assert.deepEqual(of({ weekly: 2 }), ['2026-03-08T23:00', '2026-03-11T23:00']);
  assert.deepEqual(of({ monthly: 5 }), ['2026-01-31T23:00', '2026-02-28T23:00', '2026-03-11T23:00']);
  assert.deepEqual(of({ yearly: 5 }), ['2026-03-11T23:00']);
  assert.deepEqual(of({ hourly: 2 }), ['2026-03-11T22:00', '2026-03-11T23:00']);
  const berlin = timesKept(list, { types: {}, calendar: { zone: 'Europe/Berlin', daily: 3 } });
  assert.deepEqual(berlin, ['2026-03-10T22:00', '2026-03-11T22:00', '2026-03-11T23:00']);
});

test('S0.16 a day stays by its last point while younger ones come and go', () => {
  const policy = { types: { crash: 3 }, calendar: { zone: 'UTC', daily: 7 } };
  let present: RetentionCandidate[] = [];
  for (const point of series(24 * 10, HOUR_MS)) {
    const verdicts = retentionOf([...present, point], policy, zones);
    present = [...present, point].filter((_, index) => verdicts[index]!.reasons.length > 0);
  }
  assert.deepEqual(
    present.map(({ cutAtMs }) => new Date(cutAtMs).toISOString().slice(5, 13)),
    [
      '01-04T23',
      '01-05T23',
      '01-06T23',
      '01-07T23',
      '01-08T23',
      '01-09T23',
      '01-10T21',
      '01-10T22',
      '01-10T23',
    ],
  );
});

test('S0.16 no place keeps a point that is too old; what is newest, proven, held or used stays all the same', () => {
  const list = series(10, DAY_MS).map((point, index) => ({
    ...point,
    proven: index === 1,
    inUse: index === 2,
  }));
  assert.equal(keptOf(list, { types: { crash: 10 }, maximumAgeMs: 3 * DAY_MS }), 'p2 p3 p7 p8 p9 p10');
});

test('S0.16 a clock that leaps at one of the sites lets no point grow old and ends no hold', () => {
  const list = series(10, HOUR_MS).map((point, index) =>
    index === 0 ? { ...point, hold: { untilMs: START_MS + DAY_MS } } : point,
  );
  const policy = { types: { crash: 10 }, maximumAgeMs: 2 * DAY_MS };
  const leapt = [...list, { ...at(10, START_MS + 11 * HOUR_MS), cutAtHereMs: START_MS + 400 * DAY_MS }];
  assert.equal(keptOf(leapt, policy).split(' ').length, 11);
  assert.match(keptOf(leapt, { types: {} }), /^p1 /);
  const later = [...list, at(10, START_MS + 2 * DAY_MS)];
  assert.equal(keptOf(later, { types: {} }), 'p11');
});

const anyPoints = fc.array(
  fc.record({
    copyType: fc.constantFrom('crash', 'app', 'nightly'),
    ...{ degraded: fc.boolean(), proven: fc.boolean(), isHeld: fc.boolean(), inUse: fc.boolean() },
    ...{ cutAtMs: fc.nat(2e12), cutAtHereMs: fc.nat(2e12) },
  }),
  { maxLength: 40 },
);
const anyPolicy = fc.record(
  {
    types: fc.dictionary(fc.constantFrom('crash', 'app', 'nightly'), fc.nat(6)),
    calendar: fc.record(
      {
        zone: fc.constantFrom('UTC', 'Europe/Berlin', 'Pacific/Apia'),
        ...{ hourly: fc.nat(3), daily: fc.nat(3), weekly: fc.nat(3), monthly: fc.nat(3), yearly: fc.nat(3) },
      },
      { requiredKeys: ['zone'] },
    ),
    maximumAgeMs: fc.integer({ min: 60_000, max: 1e12 }),
  },
  { requiredKeys: ['types'] },
);

test('S0.16 no policy ever lets go of the newest, the newest proven, a held or a used point', () => {
  fc.assert(
    fc.property(anyPoints, anyPolicy, (list, policy) => {
      const candidates = list.map(({ isHeld, ...point }, index) => ({
        ...{ ...point, pointId: `p${index}`, sequence: index + 1 },
        ...(isHeld ? { hold: {} } : {}),
      }));
      const verdicts = retentionOf(candidates, policy, zones);
      assert.deepEqual(
        verdicts.map(({ sequence }) => sequence),
        candidates.map(({ sequence }) => sequence),
      );
      const goes = new Set(
        verdicts.filter(({ reasons }) => reasons.length === 0).map(({ pointId }) => pointId),
      );
      assert.ok(!goes.has(candidates.at(-1)?.pointId ?? ''));
      assert.ok(!goes.has(candidates.findLast(({ proven }) => proven)?.pointId ?? ''));
      for (const { pointId, hold, inUse } of candidates) assert.ok(!((hold || inUse) && goes.has(pointId)));
      const byPolicy = verdicts.filter(({ reasons }) => reasons.some((reason) => !OTHERS.includes(reason)));
      assert.ok(byPolicy.length <= placesOf(policy));
      // What stays is asked again and stays: retention comes to rest.
      const stays = candidates.filter(({ pointId }) => !goes.has(pointId));
      assert.ok(retentionOf(stays, policy, zones).every(({ reasons }) => reasons.length > 0));
    }),
  );
});

const OTHERS: readonly string[] = ['newest', 'newest-proven', 'held', 'in-use'];

test('S0.16 the floor of a site keeps what arrived before a sender could not be trusted any more, whatever comes then', () => {
  const floor = { zone: 'UTC', daily: 7, weekly: 4 };
  const honest: ArrivedPoint[] = Array.from({ length: 60 }, (_, index) => ({
    ...{ pointId: `p${index + 1}`, sequence: index + 1, arrivedAtMs: START_MS + index * 12 * HOUR_MS },
  }));
  const end = honest.at(-1)!;
  const before = keptByFloor(honest, floor, zones);
  assert.equal(before.size, 7 + 4 - 2, 'the newest of two weeks are those of days that have a place');
  const today = end.arrivedAtMs - (end.arrivedAtMs % DAY_MS);
  const earlier = honest.filter(({ pointId, arrivedAtMs }) => before.has(pointId) && arrivedAtMs < today);
  assert.ok(earlier.length >= 8);
  // Any number of points until the end of the next day: each day that they come in takes one place, and no more.
  const flood = fc.array(fc.integer({ min: 0, max: today + 2 * DAY_MS - 1 - end.arrivedAtMs }), {
    maxLength: 300,
  });
  fc.assert(
    fc.property(flood, (offsets) => {
      const more = offsets
        .toSorted((a, b) => a - b)
        .map((offset, index) => ({
          ...{
            pointId: `x${index}`,
            sequence: end.sequence + 1 + index,
            arrivedAtMs: end.arrivedAtMs + offset,
          },
        }));
      const days = new Set(more.map(({ arrivedAtMs }) => Math.floor(arrivedAtMs / DAY_MS)));
      const kept = keptByFloor([...honest, ...more], floor, zones);
      const lost = earlier.filter(({ pointId }) => !kept.has(pointId));
      assert.ok(lost.length <= days.size, `${lost.length} lost by points on ${days.size} days`);
    }),
  );
});

test('S0.16 a floor with more places than can come on top of a policy is refused', () => {
  checkFloor({ zone: 'UTC', hourly: 24, daily: 24 }, zones);
  assert.throws(() => checkFloor({ zone: 'UTC', hourly: 25, daily: 24 }, zones), { code: 'POLICY_TOO_DEEP' });
  assert.throws(() => checkFloor({ zone: 'Moon/Sea', daily: 1 }, zones), { code: 'POLICY_ZONE_UNKNOWN' });
});
