import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policyOf } from '../../../src/cli/policy-options.ts';
import {
  parseCalendar,
  parseKeep,
  parseLimitWindow,
  parseSchedule,
  parseWindow,
} from '../../../src/cli/policy-values.ts';

test('S0.8 windows are written as days, hours and a time zone', () => {
  assert.deepEqual(parseWindow('Mon-Fri 08:00-18:00 Europe/Berlin'), {
    ...{ days: ['mon', 'tue', 'wed', 'thu', 'fri'], from: '08:00', to: '18:00', zone: 'Europe/Berlin' },
  });
  assert.deepEqual(parseWindow('Fri-Mon,Wed 22:00-06:00 UTC').days, ['mon', 'wed', 'fri', 'sat', 'sun']);
  assert.equal(parseWindow('daily 00:00-24:00 UTC').days.length, 7);
  for (const wrong of [
    ...['', 'Mon', 'Mon 08:00-18:00', 'Mon 8-18 UTC', 'Mon 24:00-08:00 UTC', 'Mo 08:00-18:00 UTC'],
    ...['Mon-Tue-Wed 08:00-18:00 UTC', 'Mon 08:00-18:00 UTC and more', 'Mon 08:00-25:00 UTC'],
  ]) {
    assert.throws(() => parseWindow(wrong), { code: 'CLI_VALUE_INVALID' }, wrong);
  }
});

test('S0.8 limits by time of day name hours and a rate', () => {
  const limit = parseLimitWindow('Sat,Sun 00:00-24:00 UTC=2M/s');
  assert.equal(limit.bytesPerSecond, 2 * 2 ** 20);
  assert.equal(parseLimitWindow('daily 00:00-06:00 UTC=unlimited').bytesPerSecond, null);
  assert.throws(() => parseLimitWindow('Sat 00:00-24:00 UTC'), { code: 'CLI_VALUE_INVALID' });
});

test('S0.8 schedules name a copy type and when it is made', () => {
  const trigger = (text: string) => parseSchedule(`app=${text}`).triggers[0];
  assert.deepEqual(trigger('every 15m'), { kind: 'interval', everyMs: 900_000 });
  assert.deepEqual(trigger('at 0 2 * * MON-FRI Europe/Berlin'), {
    ...{ kind: 'fixed', cron: '0 2 * * MON-FRI', zone: 'Europe/Berlin' },
  });
  assert.deepEqual(trigger('between 10s and 10m'), {
    kind: 'variable',
    minimumMs: 10_000,
    maximumMs: 600_000,
  });
  assert.deepEqual(trigger('on deploy'), { kind: 'call', name: 'deploy' });
  assert.deepEqual(trigger('port copy-now'), { kind: 'guest', port: 'copy-now' });
  assert.deepEqual(trigger('after 256MiB'), { kind: 'written', bytes: 2 ** 28 });
  assert.deepEqual(parseSchedule('nightly-db=off'), { copyType: 'nightly-db', triggers: [] });
  for (const wrong of [
    'app',
    'app=',
    'app=at 0 2 * * *',
    'app=between 1m',
    'app=off now',
    'App=every 1s',
    'app=sometimes',
    'app=after 10m30s',
    'app=after',
  ]) {
    assert.throws(() => parseSchedule(wrong), { code: 'CLI_VALUE_INVALID' }, wrong);
  }
});

test('S0.16 numbers of points are written by copy type and by period', () => {
  assert.deepEqual(parseKeep('crash:4,app:2,nightly-db:7'), { crash: 4, app: 2, 'nightly-db': 7 });
  assert.deepEqual(parseCalendar('daily:7,weekly:4 Europe/Berlin'), {
    zone: 'Europe/Berlin',
    daily: 7,
    weekly: 4,
  });
  assert.equal(parseCalendar('none'), 'none');
  assert.throws(() => parseKeep('crash'), { code: 'CLI_VALUE_INVALID' });
  assert.throws(() => parseKeep('crash:129'), { code: 'CLI_VALUE_INVALID' });
  assert.throws(() => parseCalendar('daily:7'), { code: 'CLI_VALUE_INVALID' });
});

test('S0.8 what is named for a copy type takes the place of all that was said of it, the rest stays', () => {
  const before = {
    ...{
      targetSiteId: 's',
      targets: [],
      blackouts: [],
      limitWindows: [],
      freezeLimitMs: 1,
      compression: true,
    },
    copyTypes: [],
    schedules: [
      { copyType: 'crash', triggers: [{ kind: 'interval' as const, everyMs: 1000 }] },
      { copyType: 'app', triggers: [{ kind: 'interval' as const, everyMs: 2000 }] },
    ],
    retention: { types: { crash: 4, app: 2 }, maximumAgeMs: 1e9 },
  };
  const schedule = [parseSchedule('app=on deploy'), parseSchedule('app=every 1h')];
  assert.deepEqual(policyOf({ schedule, keepCrash: 9 }, before), {
    schedules: [
      before.schedules[0],
      {
        copyType: 'app',
        triggers: [
          { kind: 'call', name: 'deploy' },
          { kind: 'interval', everyMs: 3_600_000 },
        ],
      },
    ],
    retention: { types: { crash: 9, app: 2 }, maximumAgeMs: 1e9 },
  });
  assert.deepEqual(policyOf({ appEvery: 'off', keepFor: 'forever', blackout: ['none'] }, before), {
    ...{ schedules: [before.schedules[0]], blackouts: [], retention: { types: { crash: 4, app: 2 } } },
  });
});
