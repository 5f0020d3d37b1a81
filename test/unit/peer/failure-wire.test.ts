import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { Failure } from '../../../src/lib/errors.ts';
import { failureForWire, failureFromWire } from '../../../src/peer/failure-wire.ts';

test('whatever a peer reports becomes a failure within limits, with the name of the peer', () => {
  const record = fc.record(
    {
      code: fc.oneof(fc.constant('SOME_CODE'), fc.string()),
      kind: fc.oneof(fc.constantFrom('input', 'refused', 'toString', '__proto__'), fc.string()),
      retry: fc.oneof(fc.constantFrom('never', 'later', 'reconnect'), fc.string()),
      message: fc.oneof(fc.string(), fc.string({ minLength: 5000, maxLength: 9000 })),
      hint: fc.string(),
      context: fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue()),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.oneof(record, fc.jsonValue()), (value) => {
      const failure = failureFromWire(value, 'Bergen');
      assert.equal(failure.context.remote, 'Bergen');
      assert.ok(failure.message.length <= 4000);
      assert.doesNotMatch(failure.message + failure.hint, /\p{Cc}/u);
      assert.ok(Object.values(failure.context).every((field) => typeof field !== 'object' || field === null));
    }),
  );
});

test('a failure that crossed twice is still the same', () => {
  const entry = { kind: 'timeout', retry: 'later', remedy: 'Wait.' } as const;
  const failure = new Failure('X_Y', entry, 'slow', { context: { a: 1, b: null, c: 'd' } });
  const once = failureFromWire(JSON.parse(JSON.stringify(failureForWire(failure))), 'B');
  const twice = failureFromWire(JSON.parse(JSON.stringify(failureForWire(once))), 'B');
  assert.deepEqual(twice.toJSON(), { ...failure.toJSON(), context: { ...failure.context, remote: 'B' } });
});
