import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  aimOf,
  type CopyType,
  checkPolicy,
  checkRetention,
  copyTypeOf,
  Zones,
} from '../../../src/recovery-point/index.ts';

const zones = new Zones();
const NOW_MS = Date.parse('2026-01-05T12:00:00Z');
const NIGHTLY: CopyType = { name: 'nightly', aim: 'application' };

function check(o: { copyTypes?: CopyType[]; copyType?: string; types?: Record<string, number> }): void {
  const { copyTypes = [NIGHTLY], copyType, types = { crash: 1, app: 1, nightly: 1 } } = o;
  const triggers = [{ kind: 'interval' as const, everyMs: 60_000 }];
  const schedules = copyType === undefined ? [] : [{ copyType, triggers }];
  checkPolicy({ schedules, copyTypes, retention: { types } }, NOW_MS, zones);
}

test('S0.4 a type of the machine is found beside the two that every machine has', () => {
  assert.equal(copyTypeOf('app', [NIGHTLY]).aim, 'application');
  assert.equal(copyTypeOf('nightly', [NIGHTLY]), NIGHTLY);
  assert.throws(() => copyTypeOf('weekly', [NIGHTLY]), { code: 'COPY_TYPE_UNKNOWN' });
});

test('S0.4 schedules and retention name types of the machine like the two that every machine has', () => {
  check({});
  check({ copyType: 'nightly' });
  check({ copyTypes: [], types: { crash: 1, nightly: 0 } });
});

test('S0.4 a type that a schedule or retention names cannot be removed, nor named before it is defined', () => {
  const code = 'COPY_TYPE_UNKNOWN';
  assert.throws(() => check({ copyTypes: [], copyType: 'nightly', types: { crash: 1 } }), {
    code,
    message: /a schedule makes copies of type «nightly»/,
  });
  assert.throws(() => check({ copyTypes: [], types: { crash: 1, nightly: 7 } }), {
    code,
    message: /retention keeps points of type «nightly»/,
  });
});

test('S0.4 a name means one type', () => {
  for (const copyTypes of [[NIGHTLY, NIGHTLY], [{ ...NIGHTLY, name: 'app' }]]) {
    assert.throws(() => check({ copyTypes, types: { crash: 1 } }), { code: 'POLICY_CONTRADICTS' });
  }
});

test('S0.4 a type whose definition would weigh on every point is refused, and so is an assertion named twice', () => {
  const assertion = { name: 'rows', command: '/bin/true', arguments: [], limitMs: 1000 };
  const withAssertions = (...assertions: (typeof assertion & { input?: string })[]) =>
    check({ copyTypes: [{ ...NIGHTLY, assertions }] });
  withAssertions(assertion);
  assert.throws(() => withAssertions(assertion, assertion), { code: 'POLICY_CONTRADICTS' });
  assert.throws(() => withAssertions({ ...assertion, input: 'x'.repeat(66_000) }), {
    code: 'COPY_TYPE_TOO_LARGE',
  });
});

test('S0.4 retention that is only tried out needs no definitions: the recovery site has none', () => {
  checkRetention({ types: { nightly: 7 } }, zones);
  assert.throws(() => checkRetention({ types: { nightly: 100, crash: 29 } }, zones), {
    code: 'POLICY_TOO_DEEP',
  });
});

test('S0.4 what a copy strove for is known without the definition of its type', () => {
  assert.equal(aimOf({ copyType: 'crash' }), 'crash');
  assert.equal(aimOf({ copyType: 'app' }), 'application');
  assert.equal(aimOf({ copyType: 'nightly', aim: 'application' }), 'application');
  assert.equal(aimOf({ copyType: 'nightly' }), 'crash');
});
