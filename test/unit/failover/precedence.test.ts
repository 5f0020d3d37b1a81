import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Precedence } from '../../../src/failover/precedence.ts';
import { isFailure } from '../../../src/lib/errors.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** Work that ends when it is told to, and takes as long for it as the test says. */
function drill(precedence: Precedence, signal?: AbortSignal) {
  const leaving = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  const ended = precedence.yielding(async (told) => {
    await new Promise<void>((resolve) => told.addEventListener('abort', () => resolve()));
    leaving.resolve();
    await left.promise;
    throw new Error('it was told to');
  }, signal);
  return { ended, leaving: leaving.promise, leave: () => left.resolve() };
}

const isGone = (error: unknown) => isFailure(error, 'FAILOVER_GAVE_WAY');

test('F6 a drill is told at once that a failover begins, which waits for the room; none begins until it is over', async () => {
  const precedence = new Precedence(new FakeClock());
  const one = drill(precedence);
  const over = Promise.withResolvers<void>();
  const happened: string[] = [];
  const failover = precedence.urgently(async (room) => {
    happened.push('fenced');
    await room;
    happened.push('room');
    await over.promise;
  });
  await one.leaving;
  assert.ok(precedence.isUrgent);
  assert.deepEqual(happened, ['fenced'], 'its memory is still in use');
  await assert.rejects(
    precedence.yielding(async () => assert.fail('it begins')),
    isGone,
  );
  one.leave();
  await assert.rejects(one.ended, isGone);
  over.resolve();
  await failover;
  assert.deepEqual(happened, ['fenced', 'room']);
  assert.ok(!precedence.isUrgent);
  assert.equal(await precedence.yielding(async () => 'again'), 'again');
});

test('F6 a failover waits for no drill longer than some seconds', async () => {
  const clock = new FakeClock();
  const precedence = new Precedence(clock);
  const one = drill(precedence);
  let hasRoom = false;
  const failover = precedence.urgently(async (room) => {
    await room;
    hasRoom = true;
  });
  await one.leaving;
  await clock.advance(4999);
  assert.ok(!hasRoom);
  await clock.advance(1);
  await failover;
  assert.ok(hasRoom);
  one.leave();
  await assert.rejects(one.ended, isGone);
});

test('F6 a drill that a person cancels did not give way, and what fails by itself says why', async () => {
  const precedence = new Precedence(new FakeClock());
  const controller = new AbortController();
  const one = drill(precedence, controller.signal);
  controller.abort();
  await one.leaving;
  one.leave();
  await assert.rejects(one.ended, (error) => isFailure(error, 'CANCELLED'));
  await assert.rejects(
    precedence.yielding(() => Promise.reject(new Error('no room'))),
    /no room/,
  );
});
