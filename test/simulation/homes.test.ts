import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sized } from '../support/size.ts';
import { HOME_ACTS, HOME_EVENTS } from './homes/home-swarm.ts';
import { HomeWorld } from './homes/home-world.ts';
import { PLANTED_HOME_BUGS } from './homes/planted-home-bugs.ts';

/** The first seeds are always the same, so that what is checked in is known to pass. */
const TURNS = 8000;
const PLANTED_SEEDS_MAX = 40;
/** What must have happened by itself, and been refused, over all lives. */
const WANTED = ['vm.fence', 'vm.set-apart', 'MACHINE_TAKEN', 'PROTECTION_FENCED'];

test('S0.17 F4 whatever befalls two sites between which a machine goes to and fro, it comes to rest at one of them, and nothing that was written is lost', async (t) => {
  const lives = sized({ what: 'S0.17: simulated lives of a machine with two homes', normal: 24, full: 400 });
  const counts: Record<string, number> = {};
  const add = (more: Readonly<Record<string, number>>) => {
    for (const [what, count] of Object.entries(more)) counts[what] = (counts[what] ?? 0) + count;
  };
  for (let seed = 1; seed <= lives; seed++) {
    const { violation, turns, lastedMs, events, acts } = await new HomeWorld(seed).run(TURNS);
    assert.equal(
      violation,
      undefined,
      `seed ${seed} found: ${violation}\nAgain with: npm run sim -- --homes --seed ${seed} --steps ${TURNS}`,
    );
    add({ ...events, turns, lastedMs });
    add(acts);
  }
  const { turns, lastedMs, ...others } = counts;
  t.diagnostic(`${lives} lives, ${turns} turns, ${Math.round(lastedMs! / 3_600_000)} h of them`);
  t.diagnostic(JSON.stringify(others));
  assert.ok(turns! >= lives * TURNS, 'a simulation that ends early has checked nothing');
  const missing = [...HOME_EVENTS, ...HOME_ACTS, ...WANTED].filter((what) => counts[what] === undefined);
  assert.deepEqual(missing, [], 'what never happens shows nothing');
});

for (const { name, wrap, expects, firstSeed = 1, swarm = {} } of PLANTED_HOME_BUGS) {
  test(`the simulation of homes finds it when ${name}`, async (t) => {
    for (let seed = firstSeed; seed < firstSeed + PLANTED_SEEDS_MAX; seed++) {
      const { violation, turns } = await new HomeWorld(seed, wrap, swarm).run(TURNS);
      if (violation === undefined) continue;
      assert.match(violation, expects, `seed ${seed}`);
      t.diagnostic(`seed ${seed}, turn ${turns}: ${violation.split('\n')[0]}`);
      return;
    }
    assert.fail(`${PLANTED_SEEDS_MAX} seeds of ${TURNS} turns did not find it`);
  });
}

test('one seed is one life with two homes: the trace of two is the same', async () => {
  const [first, second] = [await new HomeWorld(7).run(4000), await new HomeWorld(7).run(4000)];
  assert.equal(first.trace, second.trace);
  assert.equal(first.turns, second.turns);
});
