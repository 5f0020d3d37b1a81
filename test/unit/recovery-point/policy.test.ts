import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  checkPolicy,
  DEFAULT_RETENTION,
  limitAt,
  type RetentionPolicy,
  type Trigger,
  type Window,
  Zones,
} from '../../../src/recovery-point/index.ts';
import { endOfWindows, isWithin } from '../../../src/recovery-point/windows.ts';

const zones = new Zones();
const NOW_MS = Date.parse('2026-01-05T12:00:00Z');
const WORK: Window = {
  ...{ days: ['mon', 'tue', 'wed', 'thu', 'fri'], from: '08:00', to: '18:00', zone: 'Europe/Berlin' },
};
const ALL_DAYS: Window['days'] = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];

function within(window: Window, iso: string): boolean {
  return isWithin(window, Date.parse(iso), zones);
}

test('S0.8 a window is told in local time, its first minute is in it and its last is not', () => {
  assert.equal(within(WORK, '2026-01-05T06:59:59Z'), false);
  assert.equal(within(WORK, '2026-01-05T07:00:00Z'), true);
  assert.equal(within(WORK, '2026-01-05T16:59:59Z'), true);
  assert.equal(within(WORK, '2026-01-05T17:00:00Z'), false);
  assert.equal(within(WORK, '2026-07-06T06:00:00Z'), true, 'in summer an hour earlier');
  assert.equal(within(WORK, '2026-01-10T10:00:00Z'), false, 'Saturday');
});

test('S0.8 a window over midnight belongs to the day on which it begins', () => {
  const night: Window = { days: ['fri'], from: '22:00', to: '06:00', zone: 'UTC' };
  assert.equal(within(night, '2026-01-09T23:00:00Z'), true);
  assert.equal(within(night, '2026-01-10T05:59:00Z'), true);
  assert.equal(within(night, '2026-01-10T06:00:00Z'), false);
  assert.equal(within(night, '2026-01-09T05:00:00Z'), false, 'Thursday night is not in it');
  const whole: Window = { days: ['fri'], from: '12:00', to: '12:00', zone: 'UTC' };
  assert.equal(within(whole, '2026-01-10T11:59:00Z'), true);
  assert.equal(within(whole, '2026-01-10T12:00:00Z'), false);
});

test('S0.8 windows end where the clock on the wall says, also on the days when it changes', () => {
  const night: Window = { days: ALL_DAYS, from: '00:00', to: '06:00', zone: 'Europe/Berlin' };
  const endOf = (iso: string) => new Date(endOfWindows([night], Date.parse(iso), zones)!).toISOString();
  assert.equal(endOf('2026-01-05T00:00:00Z'), '2026-01-05T05:00:00.000Z');
  assert.equal(endOf('2026-03-29T00:30:00Z'), '2026-03-29T04:00:00.000Z');
  assert.equal(endOf('2026-10-25T00:30:00Z'), '2026-10-25T05:00:00.000Z');
  assert.equal(endOf('2026-01-05T05:00:00.500Z'), '2026-01-05T05:00:00.500Z');
});

const anyWindow = fc.record({
  days: fc.uniqueArray(fc.constantFrom(...ALL_DAYS), { minLength: 1 }),
  from: fc.integer({ min: 0, max: 1439 }).map(clock),
  to: fc.integer({ min: 0, max: 1439 }).map(clock),
  zone: fc.constantFrom('UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu'),
});

function clock(minute: number): string {
  return `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;
}

test('S0.8 the end of windows is the first minute outside of them', () => {
  fc.assert(
    fc.property(fc.array(anyWindow, { maxLength: 3 }), fc.nat(366 * 1440), (windows, minute) => {
      const atMs = Date.parse('2026-01-01T00:00:00Z') + minute * 60_000;
      const endMs = endOfWindows(windows, atMs, zones);
      const isIn = (ms: number) => windows.some((window) => isWithin(window, ms, zones));
      if (endMs === undefined) return assert.ok(isIn(atMs));
      assert.ok(!isIn(endMs));
      // Every minute before it is within one; not all of a week are looked at.
      for (let ms = atMs; ms < endMs && ms < atMs + 3000 * 60_000; ms += 60_000) assert.ok(isIn(ms));
    }),
    { numRuns: 60 },
  );
});

test('S0.8 bandwidth is a function of policy and time', () => {
  const bandwidth = {
    bytesPerSecond: 10_000_000,
    limitWindows: [
      { window: { ...WORK, from: '12:00', to: '13:00' }, bytesPerSecond: null },
      { window: WORK, bytesPerSecond: 2_000_000 },
    ],
  };
  const at = (iso: string) => limitAt(bandwidth, Date.parse(iso), zones);
  assert.equal(at('2026-01-05T06:59:59Z'), 10_000_000);
  assert.equal(at('2026-01-05T07:00:00Z'), 2_000_000);
  assert.equal(at('2026-01-05T11:30:00Z'), undefined, 'the first window counts');
  assert.equal(at('2026-01-05T17:00:00Z'), 10_000_000);
  assert.equal(limitAt({}, NOW_MS, zones), undefined);
});

function check(o: {
  triggers?: readonly Trigger[];
  blackouts?: Window[];
  retention?: RetentionPolicy;
  copyType?: string;
}): void {
  const triggers = [...(o.triggers ?? [{ kind: 'interval', everyMs: 60_000 } as const])];
  checkPolicy(
    {
      schedules: [{ copyType: o.copyType ?? 'crash', triggers }],
      ...(o.blackouts ? { blackouts: o.blackouts } : {}),
      retention: o.retention ?? DEFAULT_RETENTION,
    },
    NOW_MS,
    zones,
  );
}

test('S0.8 a policy that can be kept is taken', () => {
  check({});
  check({ triggers: [{ kind: 'fixed', cron: '0 0 29 2 *', zone: 'UTC' }], blackouts: [WORK] });
  check({ retention: { types: {}, calendar: { zone: 'UTC', daily: 7 } } });
});

const night = (from: string, to: string): Window => ({ days: ALL_DAYS, from, to, zone: 'UTC' });

const REFUSED: readonly (readonly [string, Parameters<typeof check>[0], string])[] = [
  ['30 February', { triggers: [{ kind: 'fixed', cron: '0 0 30 2 *', zone: 'UTC' }] }, 'POLICY_NEVER'],
  ['minute 99', { triggers: [{ kind: 'fixed', cron: '99 0 * * *', zone: 'UTC' }] }, 'POLICY_TIME_INVALID'],
  ['six fields', { triggers: [{ kind: 'fixed', cron: '0 0 0 * * *', zone: 'UTC' }] }, 'POLICY_TIME_INVALID'],
  ['a nickname', { triggers: [{ kind: 'fixed', cron: '@daily', zone: 'UTC' }] }, 'POLICY_TIME_INVALID'],
  [
    'one date',
    { triggers: [{ kind: 'fixed', cron: '2027-01-01T00:00:00', zone: 'UTC' }] },
    'POLICY_TIME_INVALID',
  ],
  ['no zone', { triggers: [{ kind: 'fixed', cron: '0 0 * * *', zone: 'Mars/Base' }] }, 'POLICY_ZONE_UNKNOWN'],
  ['a window in no zone', { blackouts: [{ ...WORK, zone: 'Mars/Base' }] }, 'POLICY_ZONE_UNKNOWN'],
  ['blackouts all week', { blackouts: [night('06:00', '18:00'), night('18:00', '06:00')] }, 'POLICY_NEVER'],
  ['a blackout all day', { blackouts: [night('00:00', '24:00')] }, 'POLICY_NEVER'],
  [
    'a minimum above the maximum',
    { triggers: [{ kind: 'variable', minimumMs: 2000, maximumMs: 1000 }] },
    'POLICY_CONTRADICTS',
  ],
  ['none of them kept', { retention: { types: { crash: 0, app: 4 } } }, 'POLICY_KEEPS_NOTHING'],
  [
    'a type that is not kept',
    { copyType: 'app', retention: { types: { crash: 4 } } },
    'POLICY_KEEPS_NOTHING',
  ],
  ['more than 128 points', { retention: { types: { crash: 100, app: 29 } } }, 'POLICY_TOO_DEEP'],
  [
    'more than 128 with the calendar',
    { retention: { types: { crash: 100 }, calendar: { zone: 'UTC', daily: 20, weekly: 9 } } },
    'POLICY_TOO_DEEP',
  ],
  ['an unknown type', { copyType: 'nothing', retention: { types: { nothing: 1 } } }, 'COPY_TYPE_UNKNOWN'],
];

for (const [what, policy, code] of REFUSED) {
  test(`S0.8 a policy with ${what} is refused`, () => {
    assert.throws(() => check(policy), { code });
  });
}
