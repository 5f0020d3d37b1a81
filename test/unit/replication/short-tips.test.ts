/** A disk grows in the very moment of a cut, and its new tip does not: the guest loses its end, until it is grown as well. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeGroup } from '../../support/fake-group.ts';

test('S0.2 a tip that could not be grown with its disk is grown as soon as the machine is looked at', async () => {
  const [box] = (await fakeGroup(['box'])).members;
  const { machine } = box!;
  await machine.attach();
  const fake = box!.fake();
  const sizeNow = () => fake.sizeOf('drive-one');
  const before = sizeNow();
  const cut = fake.cut.bind(fake);
  fake.cut = async (disks) => {
    await fake.grow('drive-one', 2 * before);
    await cut(disks);
  };
  box!.mishaps = { grow: 'refused' };
  const grown = await machine.cut('crash');
  fake.cut = cut;
  assert.deepEqual([grown.sizes, grown.short], [{ one: 2 * before, two: before }, ['one']]);
  await machine.look();
  assert.deepEqual([sizeNow(), machine.cuts.at(-1)!.short], [before, ['one']], 'it is refused still');

  box!.mishaps = {};
  await machine.look();
  assert.deepEqual([sizeNow(), machine.cuts.at(-1)!.short], [2 * before, undefined]);
  assert.deepEqual((await machine.cut('crash')).sizes, { one: 2 * before, two: before });
});
