/** In which order firmware tries devices, as `-boot` and the indexes of devices say it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Bootable, bootSequence } from '../../../src/hypervisor/qemu/captured-boot.ts';

/** Two disks, a CD drive and a NIC, with these indexes. */
function machine(indexes: Readonly<Record<string, number>>): Bootable[] {
  return (['disk a', 'disk b', 'cd c', 'nic n'] as const).map((id) => ({
    ...{ id, kind: id.split(' ')[0] as Bootable['kind'], bootIndex: indexes[id] ?? -1 },
  }));
}

test('F8 the order of booting is told where it is another one than that of the disks', () => {
  const table: [string, Record<string, number>, string, boolean, string | undefined][] = [
    ['nothing was said', {}, 'cad', false, undefined],
    ['the disks in their order', { 'disk a': 0, 'disk b': 7 }, 'cad', true, undefined],
    ['the CD first', { 'cd c': 1, 'disk a': 2 }, 'cad', true, 'cd c,disk a'],
    ['the second disk first', { 'disk b': 1 }, 'cad', true, 'disk b'],
    ['and the others behind it', { 'disk b': 1 }, 'cad', false, 'disk b,disk a,cd c'],
    ['the NIC', { 'nic n': 0, 'disk a': 3 }, 'cad', true, 'nic n,disk a'],
    ['letters: CD, then disks', {}, 'dc', false, 'cd c,disk a,disk b'],
    ['letters: network', {}, 'nc', false, 'nic n,disk a,disk b'],
    ['letters: disks alone', {}, 'c', false, undefined],
  ];
  for (const [what, indexes, order, strict, expected] of table) {
    assert.equal(bootSequence(machine(indexes), { order, strict })?.join(), expected, what);
  }
});
