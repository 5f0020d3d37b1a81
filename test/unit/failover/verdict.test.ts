import assert from 'node:assert/strict';
import { test } from 'node:test';
import { recoveryOf } from '../../../src/failover/branch-state.ts';
import type { Picture } from '../../../src/failover/picture.ts';
import { verdictOf } from '../../../src/failover/verdict.ts';
import type { ProbeResult } from '../../../src/probe/index.ts';

const DARK: Picture = { width: 2, height: 1, rgb: Buffer.alloc(6) };
const DRAWN: Picture = { width: 2, height: 1, rgb: Buffer.from([0, 0, 0, 255, 255, 255]) };
const PASSED: ProbeResult = { probe: { kind: 'agent' }, passed: true, durationMs: 1 };
const FAILED: ProbeResult = { ...PASSED, passed: false, reason: 'no success within 5 ms' };

test('a boot passes only if every probe passed and its screen shows something', () => {
  const good = { picture: DRAWN, nonce: 'read' } as const;
  assert.equal(verdictOf({ probes: [PASSED], screen: good }).verdict, 'passed');
  assert.equal(verdictOf({ probes: [PASSED, FAILED], screen: good }).verdict, 'failed');
  for (const screen of [
    { picture: DARK, nonce: 'not-drawn' },
    { picture: undefined, nonce: 'not-drawn' },
    { picture: DRAWN, nonce: 'not-read' },
  ] as const) {
    const { verdict, reasons } = verdictOf({ probes: [PASSED], screen });
    assert.equal(verdict, 'failed');
    assert.equal(reasons.length, 1);
  }
});

test('a guest that cannot draw is judged by its probes and its picture', () => {
  const screen = { picture: DRAWN, nonce: 'not-drawn' } as const;
  assert.equal(verdictOf({ probes: [PASSED], screen }).verdict, 'passed');
});

test('nothing asked is nothing proven, and a dark screen does not undo a failover', () => {
  assert.equal(verdictOf({ probes: [] }).verdict, 'unproven');
  assert.equal(verdictOf({ probes: [], screen: { picture: DRAWN, nonce: 'not-drawn' } }).verdict, 'unproven');
  assert.equal(verdictOf({ probes: [PASSED] }).verdict, 'passed');
});

test('S0.26 what a restarted site does with a branch, for every state that it can be found in', () => {
  const phases = [undefined, 'created', 'network', 'started', 'probed', 'failed', 'stopped'] as const;
  for (const purpose of ['test', 'proof', 'failover'] as const) {
    for (const phase of phases) {
      for (const keep of [false, true]) {
        for (const running of [false, true]) {
          const recovery = recoveryOf({ purpose, phase, keep, running, hasRun: false });
          const about = JSON.stringify({ purpose, phase, keep, running, recovery });
          const neverRan = phase === undefined || phase === 'created' || phase === 'network';
          if (recovery === 'attach') assert.ok(running, about);
          if (neverRan) assert.equal(recovery, 'remove', about);
          else if (purpose === 'failover') assert.notEqual(recovery, 'remove', `people's work: ${about}`);
          else if (!keep) assert.equal(recovery, 'remove', about);
          if (purpose === 'failover' && phase === 'failed') assert.equal(recovery, 'keep-files', about);
          const again = recoveryOf({ purpose, phase, keep, running, hasRun: true });
          assert.equal(again, running ? 'attach' : 'keep-files', `booted again: ${about}`);
        }
      }
    }
  }
  const started = {
    purpose: 'failover',
    phase: 'started',
    keep: true,
    running: true,
    hasRun: false,
  } as const;
  assert.equal(recoveryOf(started), 'attach', 'a failover whose probes nobody saw runs on');
  for (const phase of [...phases, 'prepared'] as const) {
    for (const running of [false, true]) {
      const recovery = recoveryOf({ purpose: 'prepared', phase, keep: true, running, hasRun: false });
      assert.equal(recovery, phase === 'prepared' ? 'keep-files' : 'remove', `preparing, ${phase}`);
    }
  }
});
