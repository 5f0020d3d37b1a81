import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../src/lib/clock.ts';
import { generationName, generationsIn } from '../../../src/lib/generations.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';

test('F4 the generations of a machine are found by the names of their directories, the newest first', () => {
  const [one, other] = [newId(systemClock, systemRandom), newId(systemClock, systemRandom)];
  assert.deepEqual([generationName(one, undefined), generationName(one, 12)], [one, `${one}.12`]);
  const strange = [
    'lost+found',
    `${one}.0`,
    `${one}.-1`,
    `${one}.1e3`,
    `${one}.2.3`,
    `${one}.removed`,
    `.${one}`,
  ];
  const found = generationsIn([`${one}.9`, one, `${one}.12`, `${one}.9`, other, ...strange]);
  assert.deepEqual([...found.keys()].sort(), [one, other].sort());
  assert.deepEqual(found.get(one), [12, 9, undefined]);
  assert.deepEqual(found.get(other), [undefined]);
});
