import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sized } from '../support/size.ts';
import { LEASE_EVENTS } from './leases/lease-swarm.ts';
import { LeaseWorld } from './leases/lease-world.ts';
import { PLANTED_LEASE_BUGS } from './leases/planted-lease-bugs.ts';

/** The first seeds are always the same, so that what is checked in is known to pass. */
const TURNS = 4000;
const PLANTED_SEEDS_MAX = 80;
/** What must have been done, and refused, over all lives. */
const WANTED = [
  'failover start --ask-witness',
  'failover restart',
  'failover undo',
  'failover withdraw',
  'vm start',
  'vm lease',
  'vm lease --off',
  'lease.vote',
  'lease.hold',
  'lease.stopped',
  'lease.runs',
  'vm.fence',
  'LEASE_HELD',
  'LEASE_WITNESS_SILENT',
  'LEASE_NOT_LENT',
  'MACHINE_TAKEN',
  'CANCELLED',
];

test('S0.17 whatever befalls three sites, a machine that runs by leases never runs twice, and comes to rest at one of them', async (t) => {
  const lives = sized({ what: 'S0.17: simulated lives of a machine with a witness', normal: 16, full: 600 });
  const counts: Record<string, number> = {};
  const add = (more: Readonly<Record<string, number>>) => {
    for (const [what, count] of Object.entries(more)) counts[what] = (counts[what] ?? 0) + count;
  };
  for (let seed = 1; seed <= lives; seed++) {
    const { violation, turns, lastedMs, probes, events, acts } = await new LeaseWorld(seed).run(TURNS);
    assert.equal(
      violation,
      undefined,
      `seed ${seed} found: ${violation}\nAgain with: npm run sim -- --leases --seed ${seed} --steps ${TURNS}`,
    );
    add({ ...events, turns, lastedMs, probes });
    add(acts);
  }
  const { turns, lastedMs, probes, ...others } = counts;
  t.diagnostic(
    `${lives} lives, ${turns} turns, ${Math.round(lastedMs! / 3_600_000)} h of them, ${probes} power cuts to look at what was promised`,
  );
  t.diagnostic(JSON.stringify(others));
  assert.ok(turns! >= lives * TURNS, 'a simulation that ends early has checked nothing');
  const missing = [...LEASE_EVENTS, ...WANTED].filter((what) => counts[what] === undefined);
  assert.deepEqual(missing, [], 'what never happens shows nothing');
});

for (const { name, wrap, expects, firstSeed = 1, swarm = {} } of PLANTED_LEASE_BUGS) {
  test(`the simulation of leases finds it when ${name}`, async (t) => {
    for (let seed = firstSeed; seed < firstSeed + PLANTED_SEEDS_MAX; seed++) {
      const { violation, turns } = await new LeaseWorld(seed, wrap, swarm).run(TURNS);
      if (violation === undefined) continue;
      assert.match(violation, expects, `seed ${seed}`);
      t.diagnostic(`seed ${seed}, turn ${turns}: ${violation.split('\n')[0]}`);
      return;
    }
    assert.fail(`${PLANTED_SEEDS_MAX} seeds of ${TURNS} turns did not find it`);
  });
}

test('one seed is one life with leases: the trace of two is the same', async () => {
  const [first, second] = [await new LeaseWorld(7).run(1500), await new LeaseWorld(7).run(1500)];
  assert.equal(first.trace, second.trace);
  assert.equal(first.turns, second.turns);
});
