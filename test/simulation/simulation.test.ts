import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sized } from '../support/size.ts';
import { World } from './world.ts';

/** The first seeds are always the same, so that what is checked in is known to pass. */
const STEPS = 3000;
const CESSIONS = 0.5;

test('S0.10 S0.11 whatever fails, nothing acknowledged is lost, nothing unfinished is shown, and all comes to rest', async (t) => {
  const seeds = sized({ what: 'S0.10: simulated lives of two sites, or three', normal: 8, full: 500 });
  const totals = { steps: 0, points: 0, pointsChecked: 0, outrun: 0, cessions: 0, faults: 0 };
  for (let seed = 1; seed <= seeds; seed++) {
    const report = await new World(seed).run(STEPS);
    assert.equal(
      report.violation,
      undefined,
      `seed ${seed} found: ${report.violation}\nAgain with: npm run sim -- --seed ${seed} --steps ${STEPS}`,
    );
    totals.steps += report.steps;
    totals.points += report.points;
    totals.pointsChecked += report.pointsChecked;
    totals.outrun += report.outrun;
    totals.cessions += report.cessions;
    totals.faults += Object.values(report.events).reduce((sum, count) => sum + count, 0);
  }
  t.diagnostic(
    `${seeds} seeds, ${totals.steps} steps, ${totals.faults} faults, ${totals.points} points acknowledged, ` +
      `${totals.pointsChecked} times a point was read and compared, ${totals.outrun} times one of two targets was left behind, ` +
      `${totals.cessions} times the machine was ceded and taken back`,
  );
  assert.ok(totals.steps >= 20_000, 'a simulation that ends early has checked nothing');
});

test('S0.17 a machine that is ceded runs nowhere until it is taken back, holds nothing that the other site lacks, and goes on as before', async (t) => {
  const lives = sized({ what: 'S0.17: simulated lives of a machine that is ceded', normal: 4, full: 200 });
  let cessions = 0;
  for (let life = 0; life < lives; life++) {
    const seed = 3 + life;
    const targets = life % 2 === 0 ? 1 : 2;
    const { violation, ...report } = await new World(seed, {}, { cessions: CESSIONS, targets }).run(STEPS);
    const chosen = `--seed ${seed} --steps ${STEPS} --cessions ${CESSIONS} --targets ${targets}`;
    assert.equal(
      violation,
      undefined,
      `seed ${seed} found: ${violation}\nAgain with: npm run sim -- ${chosen}`,
    );
    cessions += report.cessions;
  }
  t.diagnostic(`${lives} seeds, ${cessions} times ceded and taken back`);
  assert.ok(cessions > 0, 'what is never ceded shows nothing');
});

test('one seed is one run: the trace of two is the same', async () => {
  const first = await new World(7).run(1500);
  const second = await new World(7).run(1500);
  assert.equal(first.trace, second.trace);
  assert.equal(first.steps, second.steps);
});
