/** The end of a protection that something hinders. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadRecord } from '../../../src/lib/records.ts';
import { MACHINE_RECORD } from '../../../src/replication/records.ts';
import { AT_ONCE } from '../../support/actor.ts';
import type { Mishap } from '../../support/fake-hypervisor.ts';
import { Mortal, twoDiskBox } from '../../support/two-disk-box.ts';

/** The so manieth command of the machine about a commit goes wrong, once. */
function mishapAt(nth: number, mishap: Mishap) {
  let commits = 0;
  return (command: string) => (command === 'commit' && ++commits === nth ? mishap : undefined);
}

test('S0.14 whichever command about a commit is refused, or its answer lost, nothing is lost, and it ends when it is asked for again', async () => {
  let failures = 0;
  for (const mishap of ['refused', 'answer-lost'] as const) {
    for (let nth = 1; nth <= 6; nth++) {
      const box = await twoDiskBox();
      const machine = await box.open(AT_ONCE, mishapAt(nth, mishap));
      await machine.attach();
      const when = `command ${nth} ${mishap}`;
      await machine.unprotect().catch(() => (failures += 1));
      // Somebody who looks now and then, as the site does.
      await machine.look();
      assert.equal(box.fake().isPaused, false, when);
      await box.write();
      if (machine.record.protection) {
        await assert.rejects(machine.cut('crash'), { code: 'PROTECTION_NOT_PROTECTED' }, when);
        await machine.unprotect();
      }
      assert.deepEqual([machine.record.protection, machine.record.dissolving], [null, undefined], when);
      await box.write();
      await box.assertGivenBack(when);
      await machine.release();
    }
  }
  assert.ok(failures >= 8, `${failures} failures`);
});

test('S0.14 a machine that its owner has paused stays paused, also if the site is killed meanwhile', async () => {
  for (let acts = 0; ; acts += 2) {
    const box = await twoDiskBox();
    box.fake().pause();
    const { site } = await box.unprotectUntil(acts);
    const guard = new Mortal(acts % 4 === 0 ? 0 : Number.POSITIVE_INFINITY);
    if (site.isDead) await box.parentDied(site, guard);
    const again = await box.open();
    await again.attach();
    if (again.record.protection) await again.unprotect();
    assert.equal(box.fake().isPaused, true, `killed before act ${acts}`);
    box.fake().resume();
    await box.write();
    await box.assertGivenBack(`killed before act ${acts}`);
    if (!site.isDead) return;
  }
});

test('S0.14 layers are not committed over a machine that was started on the files below them', async () => {
  const box = await twoDiskBox();
  const { machine } = await box.unprotectUntil(12);
  assert.equal(machine.record.dissolving, 'committing');
  box.fake().kill();
  await box.runOnOrigins();
  const again = await box.open();
  assert.equal((await again.attach()).state, 'stale');
  await assert.rejects(again.unprotect(), { code: 'PROTECTION_STALE_BASE' });
  // That is not forgotten when the machine stops, nor by the next process.
  box.fake().kill();
  const third = await box.open();
  assert.equal((await third.attach()).state, 'stale');
  await assert.rejects(third.unprotect(), { code: 'PROTECTION_STALE_BASE' });
  assert.equal(box.names().filter((path) => path.startsWith(box.layout.disks)).length, 4);
});

test('S0.14 a program that does not know of tips that are given back refuses the record until it is over', async () => {
  const versions = new Set<number>();
  for (let acts = 0; ; acts += 4) {
    const box = await twoDiskBox();
    const { site } = await box.unprotectUntil(acts);
    if (site.isDead) await box.parentDied(site, new Mortal());
    const found = await loadRecord(box.files, box.layout.record, MACHINE_RECORD);
    const { version } = JSON.parse(await box.text(box.layout.record)) as { version: number };
    const isGivingBack = found?.dissolving === 'committing' || found?.dissolving === 'pivoting';
    assert.equal(version, isGivingBack ? 6 : 2, found?.dissolving);
    versions.add(version);
    if (!site.isDead) break;
  }
  assert.deepEqual([...versions].sort(), [2, 6]);
});
