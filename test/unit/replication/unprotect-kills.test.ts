/** The end of a protection, interrupted at every step: the owner's files hold what the guest wrote last. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sized } from '../../support/size.ts';
import { Mortal, type TwoDiskBox, twoDiskBox } from '../../support/two-disk-box.ts';

const FATES = ['the machine ends', 'the host loses its power', 'the machine runs on'] as const;

/** The guard is killed at one step in so many. */
const STRIDE = sized({ what: 'S0.14: steps between kills of a guard', normal: 5, full: 1 });
/** So many ends are tried after each kill, in turn. */
const ENDS = sized({ what: 'S0.14: ends of a machine after each kill', normal: 1, full: FATES.length });

function fatesOf(turn: number): readonly (typeof FATES)[number][] {
  return [...FATES, ...FATES].slice(turn % FATES.length).slice(0, ENDS);
}

async function unprotectedUntil(box: TwoDiskBox, acts: number): Promise<{ site: Mortal; when: string }> {
  const { site } = await box.unprotectUntil(acts);
  return { site, when: `killed before act ${acts} («${site.diedBefore}»)` };
}

/** What the next process of the site makes of it. */
async function goneOnWith(box: TwoDiskBox, when: string): Promise<void> {
  const machine = await box.open();
  await machine.attach();
  if (machine.record.protection) await machine.unprotect();
  assert.deepEqual([machine.record.protection, machine.record.dissolving], [null, undefined], when);
  await machine.release();
}

/** The guest writes, if it runs; then one of three things happens, and the next process of the site ends what was begun. */
async function assertNothingLost(box: TwoDiskBox, fate: (typeof FATES)[number], when: string): Promise<void> {
  if (!box.fake().isPaused) await box.write();
  if (fate === 'the machine ends') box.fake().kill();
  if (fate === 'the host loses its power') box.losePower(when.length);
  await goneOnWith(box, `${when}, then ${fate}`);
  if (fate === 'the machine runs on') {
    assert.equal(box.fake().isPaused, false, when);
    await box.write();
  }
  await box.assertGivenBack(`${when}, then ${fate}`);
}

test('S0.14 the end of a protection that is killed at any step loses nothing that the guest writes after it', async (t) => {
  let kills = 0;
  let paused = 0;
  for (let acts = 0, hasDied = true; hasDied; acts++) {
    for (const guard of [new Mortal(), new Mortal(0)]) {
      const isAlone = guard.left === 0;
      for (const fate of fatesOf(acts + Number(isAlone))) {
        const box = await twoDiskBox();
        const { site, when } = await unprotectedUntil(box, acts);
        hasDied = site.isDead;
        if (hasDied) await box.parentDied(site, guard);
        if (box.fake().isPaused) paused += 1;
        assert.ok(isAlone || !box.fake().isPaused, `${when}: its guard lives, and the guest stands still`);
        await assertNothingLost(box, fate, `${when}, its guard ${isAlone ? 'too' : 'not'}`);
        kills += 1;
      }
    }
  }
  t.diagnostic(`${kills} lives; in ${paused} of them the guest stood still until the site came back`);
  assert.ok(kills > 100, `${kills} kills`);
  assert.ok(paused > 5, `${paused} pauses`);
});

test('S0.14 neither does one whose guard is killed, at any step, after the site', async (t) => {
  // Before the guest is stopped, and after it runs again, a guard has nothing to do.
  let kills = 0;
  for (let acts = 0, hasDied = true; hasDied; acts++) {
    for (let steps = acts % STRIDE, guardHasDied = true; guardHasDied; steps += STRIDE) {
      for (const fate of fatesOf(acts + steps)) {
        const box = await twoDiskBox();
        const { site, when } = await unprotectedUntil(box, acts);
        hasDied = site.isDead;
        const isStill = box.fake().isPaused;
        const guard = new Mortal(isStill ? steps : 0);
        if (hasDied) await box.parentDied(site, guard);
        guardHasDied = isStill && guard.isDead;
        if (!isStill) break;
        const both = `${when}, its guard before act ${steps} («${guard.diedBefore}»)`;
        await assertNothingLost(box, fate, both);
        kills += 1;
      }
    }
  }
  t.diagnostic(`${kills} kills of the guard`);
  assert.ok(kills > 50, `${kills} kills`);
});
