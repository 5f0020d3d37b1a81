import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guestEnds } from '../../../src/control/machines/guest-end.ts';
import { type Asking, nextAsk } from '../../../src/control/machines/guest-end-plan.ts';
import { silentLog } from '../../../src/lib/log.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const GRACE_MS = 60_000;

function next(asking: Partial<Asking>) {
  return nextAsk({ atMs: 0, graceMs: GRACE_MS, agent: 'unasked', isButtonPressed: false, ...asking });
}

test('S0.17 a guest is asked by its agent, by its power button when that is silent or half of the time has passed, and given up in the end', () => {
  assert.deepEqual(next({}), { act: 'ask-agent', limitMs: 3_000 });
  assert.deepEqual(next({ graceMs: 1_000 }), { act: 'ask-agent', limitMs: 500 });
  assert.deepEqual(next({ agent: 'silent' }), { act: 'press-button' });
  const taken = { agent: 'has-taken-it' } as const;
  assert.deepEqual(next(taken), { act: 'wait', forMs: 30_000 });
  assert.deepEqual(next({ ...taken, atMs: 29_000 }), { act: 'wait', forMs: 1_000 });
  assert.deepEqual(next({ ...taken, atMs: 30_000 }), { act: 'press-button' });
  for (const agent of ['silent', 'has-taken-it'] as const) {
    const pressed = { agent, isButtonPressed: true };
    assert.deepEqual(next({ ...pressed, atMs: 31_000 }), { act: 'wait', forMs: 29_000 });
    assert.deepEqual(next({ ...pressed, atMs: GRACE_MS }), { act: 'give-up' });
  }
  assert.deepEqual(next({ graceMs: 0 }), { act: 'give-up' }, 'no time is no question');
});

/** A guest without an agent. */
function guest(onButton: (end: () => void) => Promise<void>) {
  const gone = Promise.withResolvers<void>();
  const did: string[] = [];
  const pressPowerButton = () => {
    did.push('button');
    return onButton(gone.resolve);
  };
  return { did, end: gone.resolve, sockets: { qmpPath: '/qmp' }, gone: gone.promise, pressPowerButton };
}

test('S0.17 a guest that ends while it is waited for has ended, also one that is slow; one that does not is told to be at work', async () => {
  const clock = new FakeClock();
  const tools = { clock, log: silentLog };
  const slow = guest(async () => undefined);
  const ending = guestEnds(tools, slow, GRACE_MS, undefined);
  await clock.turn(GRACE_MS - 1);
  slow.end();
  assert.equal(await ending, true);
  const deaf = guest(async () => undefined);
  const waiting = guestEnds(tools, deaf, GRACE_MS, undefined);
  await clock.turn(GRACE_MS);
  assert.equal(await waiting, false);
  assert.deepEqual([slow.did, deaf.did], [['button'], ['button']], 'once each');
  assert.equal(clock.pending, 0);
});

test('S0.17 whoever does not wait any more has pressed the button all the same, and waits for nothing', async () => {
  const clock = new FakeClock();
  const one = guest(async () => undefined);
  const leaving = new AbortController();
  const ending = guestEnds({ clock, log: silentLog }, one, GRACE_MS, leaving.signal);
  await clock.turn(1_000);
  leaving.abort();
  await assert.rejects(ending, { code: 'CANCELLED' });
  assert.deepEqual([one.did, clock.pending], [['button'], 0]);
});
