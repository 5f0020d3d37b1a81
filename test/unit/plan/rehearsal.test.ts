/** When a plan is rehearsed by itself: once for what was missed, whatever the clock on the wall does. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PlanRun } from '../../../src/api/index.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { afterRuns, checkRehearsalTimes, type KeptRehearsal, standingOf } from '../../../src/plan/index.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const at = (text: string) => Date.parse(`${text}Z`);
const NIGHTLY: KeptRehearsal = {
  ...{ plan: 'shop', withinMs: 6 * HOUR_MS, sinceMs: at('2026-03-02T12:00') },
  times: { kind: 'fixed', cron: '0 2 * * *', zone: 'UTC' },
};

function run(startedAtMs: number, verdict?: PlanRun['verdict'], change: Partial<PlanRun> = {}): PlanRun {
  return {
    ...{ runId: `r${startedAtMs}`, actor: 'site', request: { mode: 'test' }, startedAtMs, steps: [] },
    jobId: 'j',
    document: { plan: 'shop', machines: { db: {} } },
    ...(verdict ? { verdict, endedAtMs: startedAtMs + 1000 } : {}),
    ...change,
  };
}

/** As a site looks: what is kept after the runs, the newest first, and where it stands. */
function looked(kept: KeptRehearsal, runs: readonly PlanRun[], nowMs: number) {
  const after = afterRuns(kept, runs, nowMs);
  return { after, ...standingOf(after, runs, nowMs) };
}

describe('a plan that is rehearsed by itself', () => {
  it('F5 is due at its time, and once only for all that was missed', () => {
    assert.equal(looked(NIGHTLY, [], at('2026-03-02T13:00')).dueAtMs, at('2026-03-03T02:00'));
    const first = run(at('2026-03-03T02:00'), 'done');
    const { after, dueAtMs } = looked(NIGHTLY, [first], at('2026-03-03T02:10'));
    assert.equal(dueAtMs, at('2026-03-04T02:00'));
    // The site was away for three nights.
    const missed = looked(after, [first], at('2026-03-07T09:00'));
    assert.equal(missed.dueAtMs, at('2026-03-04T02:00'));
    // The site ended before it had begun it: nobody carries it out.
    const { jobId: _none, ...unbegun } = run(at('2026-03-07T08:59'));
    assert.equal(looked(after, [unbegun, first], at('2026-03-07T09:00')).dueAtMs, missed.dueAtMs);
    const steps: PlanRun['steps'] = [{ machine: 'db', machineId: 'm', state: 'waiting' }];
    const ended: PlanRun = { ...unbegun, steps, endedAtMs: unbegun.startedAtMs + 1000, verdict: 'cancelled' };
    assert.equal(looked(after, [ended, first], at('2026-03-07T09:00')).dueAtMs, missed.dueAtMs);
    // The site ended before the run could say which job carries it out.
    const begun: PlanRun = { ...unbegun, steps: [{ ...steps[0]!, state: 'starting' }] };
    assert.equal(looked(after, [begun, first], at('2026-03-07T09:00')).dueAtMs, at('2026-03-08T02:00'));
    const second = run(at('2026-03-07T09:00'));
    const made = looked(missed.after, [second, first], at('2026-03-07T09:01'));
    assert.equal(made.dueAtMs, at('2026-03-08T02:00'));
    // What the runs told is kept when they are not.
    assert.equal(looked(made.after, [], at('2026-03-07T10:00')).dueAtMs, at('2026-03-08T02:00'));
  });

  it('F5 runs in earnest and other plans count for nothing', () => {
    const [nowMs, atMs] = [at('2026-03-03T03:00'), at('2026-03-03T02:30')];
    const others = [
      run(atMs, 'done', { request: { mode: 'unplanned' } }),
      run(atMs, 'done', { document: { plan: 'other', machines: { db: {} } } }),
    ];
    const { after, dueAtMs } = looked(NIGHTLY, others, nowMs);
    assert.deepEqual([dueAtMs, after], [at('2026-03-03T02:00'), NIGHTLY]);
  });

  it('F5 so often counts from the last one, and begins with one at once', () => {
    const often: KeptRehearsal = { ...NIGHTLY, times: { kind: 'interval', everyMs: DAY_MS } };
    assert.equal(looked(often, [], often.sinceMs).dueAtMs, often.sinceMs);
    const last = run(often.sinceMs + HOUR_MS, 'partly');
    assert.equal(looked(often, [last], often.sinceMs + 2 * HOUR_MS).dueAtMs, last.startedAtMs + DAY_MS);
  });

  it('F5 is failing until one passes, and overdue when none has passed for too long after its time', () => {
    const failed = run(at('2026-03-03T02:00'), 'partly');
    const cancelled = run(at('2026-03-03T03:00'), 'cancelled');
    const bad = looked(NIGHTLY, [cancelled, failed], at('2026-03-03T07:59'));
    assert.deepEqual([bad.failing?.runId, bad.isOverdue], [failed.runId, false]);
    assert.equal(looked(NIGHTLY, [cancelled, failed], at('2026-03-03T08:01')).isOverdue, true);
    const passed = run(at('2026-03-03T09:00'), 'done');
    const good = looked(bad.after, [passed, cancelled, failed], at('2026-03-03T09:10'));
    assert.deepEqual([good.failing, good.isOverdue], [undefined, false]);
  });

  it('F5 a clock that is put back costs one too many and none too few', () => {
    const ahead = run(at('2026-05-01T02:00'), 'done');
    const { after } = looked(NIGHTLY, [ahead], at('2026-05-01T02:10'));
    const set = { ...after, sinceMs: at('2026-04-30T00:00') };
    const back = looked(set, [ahead], at('2026-03-10T01:00'));
    assert.deepEqual(back.after.sinceMs, at('2026-03-10T01:00'));
    assert.equal(back.dueAtMs, at('2026-03-10T02:00'));
    const again = run(at('2026-03-10T02:00'));
    assert.equal(looked(back.after, [again, ahead], at('2026-03-10T02:05')).dueAtMs, at('2026-03-11T02:00'));
  });

  it('F5 times that never come are refused', () => {
    const never = { kind: 'fixed', cron: '0 2 30 2 *', zone: 'UTC' } as const;
    assert.throws(
      () => checkRehearsalTimes(never, 0),
      (error) => isFailure(error, 'POLICY_NEVER'),
    );
    checkRehearsalTimes(NIGHTLY.times, 0);
  });
});
