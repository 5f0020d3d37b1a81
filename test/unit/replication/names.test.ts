import assert from 'node:assert/strict';
import { it } from 'node:test';
import { nameAt, renamed } from '../../../src/replication/names.ts';
import type { CutRecord, MachineRecord } from '../../../src/replication/records.ts';

const cut = (ordinal: number) => ({ ordinal }) as CutRecord;

it('S0.28 every cut keeps the name that its machine had, as long as there is that cut', () => {
  const record = { name: 'a', configuration: { name: 'a', cpus: 1 } } as MachineRecord;
  const first = renamed(record, [], 'b');
  assert.deepEqual(first, { name: 'b', configuration: { name: 'b', cpus: 1 } });
  const second = renamed(first, [cut(1), cut(2)], 'c');
  const third = renamed(second, [cut(1), cut(2), cut(3)], 'd');
  assert.deepEqual(
    [1, 2, 3, 4].map((ordinal) => nameAt(third, cut(ordinal))),
    ['b', 'b', 'c', 'd'],
  );
  const later = renamed(third, [cut(3), cut(4)], 'e');
  assert.deepEqual(
    [3, 4, 5].map((ordinal) => nameAt(later, cut(ordinal))),
    ['c', 'd', 'e'],
  );
  assert.equal(later.formerNames?.length, 2, 'names of cuts that are gone are forgotten');
});
