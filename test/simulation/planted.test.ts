import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PLANTED_BUGS } from './planted-bugs.ts';
import { ONE_SITE } from './swarm.ts';
import { World } from './world.ts';

const SEEDS_MAX = 60;
const STEPS = 3000;

for (const { name, wrap, expects, firstSeed = 1, swarm = {} } of PLANTED_BUGS) {
  test(`the simulation finds it when ${name}`, async (t) => {
    for (let seed = firstSeed; seed < firstSeed + SEEDS_MAX; seed++) {
      const { violation, steps } = await new World(seed, wrap, { ...ONE_SITE, cessions: 0, ...swarm }).run(
        STEPS,
      );
      if (violation === undefined) continue;
      assert.match(violation, expects, `seed ${seed}`);
      t.diagnostic(`seed ${seed}, step ${steps}: ${violation.split('\n')[0]}`);
      return;
    }
    assert.fail(`${SEEDS_MAX} seeds of ${STEPS} steps did not find it`);
  });
}
