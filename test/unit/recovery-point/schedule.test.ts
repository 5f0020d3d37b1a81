import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type CopyPlan,
  type Instant,
  Schedule,
  type ScheduleState,
  type Situation,
  type Trigger,
  Zones,
} from '../../../src/recovery-point/index.ts';
import { variableIntervalMs } from '../../../src/recovery-point/variable-interval.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const zones = new Zones();

const STEADY: Situation = { hasCopy: true, isAcknowledged: true, lastTransfer: undefined };

function every(copyType: string, everyMs: number) {
  return { copyType, triggers: [{ kind: 'interval' as const, everyMs }] };
}

function fixed(copyType: string, cron: string, zone = 'UTC') {
  return { copyType, triggers: [{ kind: 'fixed' as const, cron, zone }] };
}

/** A scheduler on two clocks turned by hand, which makes every copy at once. */
class Turned {
  readonly made: string[] = [];
  readonly #schedule: Schedule;
  #state: ScheduleState;
  #wallMs: number;
  #monotonicMs = 0;

  constructor(plan: CopyPlan, startIso: string, lastCutIso?: string) {
    this.#schedule = Schedule.of(plan, zones);
    this.#wallMs = Date.parse(startIso);
    this.#state = this.#schedule.begin(
      this.now,
      lastCutIso === undefined ? undefined : Date.parse(lastCutIso),
    );
  }

  get now(): Instant {
    return { wallMs: this.#wallMs, monotonicMs: this.#monotonicMs };
  }

  event(copyType: string, isAsked = false): this {
    this.#state = this.#schedule.event(this.#state, copyType, this.#monotonicMs, isAsked);
    return this.run(0);
  }

  jump(byMs: number): this {
    this.#wallMs += byMs;
    return this;
  }

  run(ms: number, situation: Situation = STEADY): this {
    const endMs = this.#monotonicMs + ms;
    for (;;) {
      this.#state = this.#schedule.look(this.#state, this.now);
      const due = this.#schedule.next(this.#state, this.now, situation);
      if (due && due.dueAtMs <= this.#monotonicMs) {
        this.#state = this.#schedule.made(this.#state, due.copyType, this.#monotonicMs);
        this.made.push(`${due.copyType} ${new Date(this.#wallMs).toISOString().slice(5, 19)} ${due.why}`);
        continue;
      }
      const nextMs = Math.min(
        due?.dueAtMs ?? Number.POSITIVE_INFINITY,
        this.#schedule.lookAgainAtMs(this.now),
      );
      if (nextMs > endMs) break;
      this.#pass(nextMs - this.#monotonicMs);
    }
    this.#pass(endMs - this.#monotonicMs);
    return this;
  }

  #pass(ms: number): void {
    this.#monotonicMs += ms;
    this.#wallMs += ms;
  }
}

test('S0.8 crash every 30 s, app every 5 min and an event give exactly these copies', () => {
  const plan = { schedules: [every('crash', 30_000), every('app', 300_000)] };
  const turned = new Turned(plan, '2026-01-05T12:00:00Z').run(70_000).event('app').run(250_000);
  assert.deepEqual(turned.made, [
    'app 01-05T12:00:00 interval',
    'crash 01-05T12:00:30 interval',
    'crash 01-05T12:01:00 interval',
    'app 01-05T12:01:10 event',
    'crash 01-05T12:01:40 interval',
    'crash 01-05T12:02:10 interval',
    'crash 01-05T12:02:40 interval',
    'crash 01-05T12:03:10 interval',
    'crash 01-05T12:03:40 interval',
    'crash 01-05T12:04:10 interval',
    'crash 01-05T12:04:40 interval',
    'crash 01-05T12:05:10 interval',
  ]);
});

test('S0.8 of two types due together the one that counts as the other is made; a user-defined one is never left out', () => {
  const plan = { schedules: [every('crash', 5000), every('app', 20_000), every('nightly-db', 20_000)] };
  const turned = new Turned(plan, '2026-01-05T12:00:00Z').run(20_000);
  assert.deepEqual(
    turned.made.map((line) => line.split(' ')[0]),
    ['nightly-db', 'app', 'crash', 'crash', 'crash', 'nightly-db', 'app'],
  );
});

test('S0.8 events that come in a storm make one copy a second at the most', () => {
  const turned = new Turned({ schedules: [{ copyType: 'app', triggers: [] }] }, '2026-01-05T12:00:00Z');
  for (let number = 0; number < 30; number++) turned.event('app').run(100);
  turned.run(10_000);
  assert.equal(turned.made.length, 4);
});

test('S0.8 a machine without a copy gets one at once, whatever its triggers', () => {
  const plan = { schedules: [fixed('app', '0 2 * * *')] };
  const turned = new Turned(plan, '2026-01-05T12:00:00Z').run(0, { ...STEADY, hasCopy: false });
  assert.deepEqual(turned.made, ['app 01-05T12:00:00 first']);
  assert.deepEqual(turned.run(15 * HOUR_MS).made.slice(1), ['app 01-06T02:00:00 fixed']);
});

const DST = [
  // Berlin puts its clocks forward at 01:00 UTC on 29 March 2026 and back at 01:00 UTC on 25 October.
  ['30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00Z', ['03-29T01:00:00', '03-30T00:30:00']],
  ['30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', ['10-25T00:30:00', '10-26T01:30:00']],
  ['15,45 2 * * *', 'Europe/Berlin', '2026-03-28T12:00:00Z', ['03-30T00:15:00', '03-30T00:45:00']],
  [
    '15,45 2 * * *',
    'Europe/Berlin',
    '2026-10-24T12:00:00Z',
    [
      '10-25T00:15:00',
      '10-25T00:45:00',
      '10-25T01:15:00',
      '10-25T01:45:00',
      '10-26T01:15:00',
      '10-26T01:45:00',
    ],
  ],
  // São Paulo left out midnight itself; Lord Howe shifts by half an hour.
  ['0 0 * * *', 'America/Sao_Paulo', '2018-11-03T12:00:00Z', ['11-04T03:00:00', '11-05T02:00:00']],
  ['0 2 * * *', 'Australia/Lord_Howe', '2026-10-03T00:00:00Z', ['10-03T15:30:00', '10-04T15:00:00']],
] as const;

for (const [cron, zone, startIso, expected] of DST) {
  test(`S0.8 «${cron}» in ${zone} after ${startIso} keeps to the clock on the wall`, () => {
    const turned = new Turned({ schedules: [fixed('app', cron, zone)] }, startIso).run(47 * HOUR_MS);
    assert.deepEqual(
      turned.made.map((line) => line.split(' ')[1]),
      expected,
    );
  });
}

test('S0.8 a wall clock that leaps over several fixed times makes one copy', () => {
  const plan = { schedules: [fixed('app', '0 * * * *')] };
  const turned = new Turned(plan, '2026-01-05T12:30:00Z')
    .run(MINUTE_MS)
    .jump(5 * HOUR_MS)
    .run(MINUTE_MS);
  assert.deepEqual(turned.made, ['app 01-05T17:31:00 fixed']);
});

test('S0.8 a wall clock that is put back repeats no copy, and makes the next one in time', () => {
  const plan = { schedules: [fixed('app', '0 * * * *')] };
  const turned = new Turned(plan, '2026-01-05T12:30:00Z')
    .run(HOUR_MS)
    .jump(-HOUR_MS)
    .run(2 * HOUR_MS);
  assert.deepEqual(turned.made, ['app 01-05T13:00:00 fixed', 'app 01-05T14:00:00 fixed']);
});

test('S0.8 a clock that was a year ahead and is put right leaves out nothing and repeats nothing', () => {
  const plan = { schedules: [fixed('app', '0 * * * *')] };
  const turned = new Turned(plan, '2026-01-05T12:30:00Z')
    .run(10 * MINUTE_MS)
    .jump(365 * 24 * HOUR_MS)
    .run(10 * MINUTE_MS)
    .jump(-365 * 24 * HOUR_MS)
    .run(2 * HOUR_MS);
  assert.deepEqual(turned.made, [
    'app 01-05T12:40:00 fixed',
    'app 01-05T13:00:00 fixed',
    'app 01-05T14:00:00 fixed',
  ]);
});

test('S0.8 fixed times that passed while nobody looked are one copy at the start', () => {
  const plan = { schedules: [fixed('app', '0 2 * * *')] };
  const missed = new Turned(plan, '2026-01-05T12:00:00Z', '2026-01-02T23:00:00Z').run(MINUTE_MS);
  assert.deepEqual(missed.made, ['app 01-05T12:00:00 fixed']);
  const notMissed = new Turned(plan, '2026-01-05T12:00:00Z', '2026-01-05T02:00:01Z').run(MINUTE_MS);
  assert.deepEqual(notMissed.made, []);
});

test('S0.8 in a blackout nothing is made, and at its end one copy at once of what was due', () => {
  const work = { days: ['mon' as const], from: '12:00', to: '13:00', zone: 'UTC' };
  const plan = { schedules: [every('crash', 10 * MINUTE_MS), every('app', HOUR_MS)], blackouts: [work] };
  const turned = new Turned(plan, '2026-01-05T11:45:00Z')
    .run(30 * MINUTE_MS)
    .event('app')
    .run(65 * MINUTE_MS);
  assert.deepEqual(turned.made, [
    'app 01-05T11:45:00 interval',
    'crash 01-05T11:55:00 interval',
    'app 01-05T13:00:00 event',
    'crash 01-05T13:10:00 interval',
    'crash 01-05T13:20:00 interval',
  ]);
});

test('S0.8 a variable interval grows with what must be sent and shrinks with the link, within its bounds', () => {
  const trigger: Extract<Trigger, { kind: 'variable' }> = {
    ...{ kind: 'variable', minimumMs: 5000, maximumMs: 600_000 },
  };
  const after = (tookMs: number, bytes: number, coversMs = 10_000) =>
    variableIntervalMs(trigger, { tookMs, bytes, coversMs });
  assert.equal(variableIntervalMs(trigger, undefined), 5000);
  assert.equal(after(20_000, 1e9), 40_000, 'the link rests as long as it worked');
  assert.equal(after(100, 1e9), 5000);
  assert.equal(after(1e7, 1e12), 600_000);
  assert.equal(after(10, 0), 600_000, 'nothing changes');
  assert.equal(after(10, 512 * 1024), 20_000, 'until a copy is worth while');
  fc.assert(
    fc.property(fc.nat(1e6), fc.nat(1e9), fc.nat(1e7), (tookMs, bytes, coversMs) => {
      const pauseMs = after(tookMs, bytes, coversMs);
      assert.ok(pauseMs >= 5000 && pauseMs <= 600_000);
      assert.ok(after(tookMs + 1000, bytes, coversMs) >= pauseMs);
    }),
  );
});

test('S0.8 a variable interval waits for the acknowledgement, but not beyond its maximum', () => {
  const plan = {
    schedules: [
      { copyType: 'crash', triggers: [{ kind: 'variable' as const, minimumMs: 5000, maximumMs: 60_000 }] },
    ],
  };
  const waiting = { ...STEADY, isAcknowledged: false };
  const turned = new Turned(plan, '2026-01-05T12:00:00Z').run(0).run(61_000, waiting).run(5000);
  assert.deepEqual(turned.made, [
    'crash 01-05T12:00:00 variable',
    'crash 01-05T12:01:00 variable',
    'crash 01-05T12:01:05 variable',
  ]);
});

const steps = fc.array(
  fc.oneof(
    fc.record({ run: fc.integer({ min: 0, max: 5 * HOUR_MS }) }),
    fc.record({ jump: fc.integer({ min: -30 * HOUR_MS, max: 30 * HOUR_MS }) }),
  ),
  { maxLength: 12 },
);

test('S0.8 however the wall clock leaps: no fixed time is answered twice, and one leap makes one copy at the most', () => {
  fc.assert(
    fc.property(steps, fc.constantFrom('UTC', 'Europe/Berlin'), (list, zone) => {
      const turned = new Turned({ schedules: [fixed('app', '0 * * * *', zone)] }, '2026-03-28T20:00:01Z');
      let hasLeapt = false;
      for (const step of list) {
        const before = turned.made.length;
        if ('jump' in step) {
          turned.jump(step.jump).run(0);
          assert.ok(turned.made.length - before <= 1);
          hasLeapt = true;
        } else {
          turned.run(step.run);
          assert.ok(turned.made.length - before <= Math.ceil(step.run / HOUR_MS) + 1);
          if (!hasLeapt) assert.ok(turned.made.length - before >= Math.floor(step.run / HOUR_MS));
        }
      }
      const onTime = turned.made.filter((line) => line.includes(':00:00 '));
      assert.equal(new Set(onTime).size, onTime.length);
    }),
    { numRuns: 200 },
  );
});

test('S0.8 intervals do not ask the wall clock at all', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -1e10, max: 1e10 }), { maxLength: 5 }), (jumps) => {
      const turned = new Turned({ schedules: [every('crash', MINUTE_MS)] }, '2026-01-05T12:00:00Z').run(0);
      for (const byMs of jumps) turned.jump(byMs).run(MINUTE_MS);
      assert.equal(turned.made.length, 1 + jumps.length);
    }),
  );
});

test('S0.8 a copy that is asked for is made of a type without a schedule too, once, and not in a blackout; an event does not', () => {
  const plan = { schedules: [every('crash', 10 * MINUTE_MS)] };
  const turned = new Turned(plan, '2025-01-15T00:00:00Z').run(MINUTE_MS);
  const before = turned.made.length;
  turned.event('app').run(MINUTE_MS);
  assert.equal(turned.made.length, before);
  turned.event('app', true).run(MINUTE_MS);
  assert.deepEqual(turned.made.slice(before), ['app 01-15T00:02:00 event']);
  const days = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const;
  const blackouts = [{ days: [...days], from: '00:00', to: '01:00', zone: 'UTC' }];
  const dark = new Turned({ schedules: [], blackouts }, '2025-01-15T00:30:00Z');
  dark.event('app', true).run(29 * MINUTE_MS);
  assert.equal(dark.made.length, 0);
  dark.run(2 * MINUTE_MS);
  assert.equal(dark.made.length, 1);
});
