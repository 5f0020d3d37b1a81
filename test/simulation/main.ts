import { parseArgs } from 'node:util';
import { HomeWorld } from './homes/home-world.ts';
import { LeaseWorld } from './leases/lease-world.ts';
import type { Swarm } from './swarm.ts';
import { World } from './world.ts';

/**
 * `npm run sim -- --seed N --steps M --seeds K`: runs K seeds from N on, M steps each; stops at the first that fails. With `--leases`
 * these are lives of a machine that runs by leases, of its recovery site and its witness. `--cessions P` and `--targets N` take the place
 * of what the seed would choose: how probable it is that the machine is handed over, and how many recovery sites there are.
 */
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    steps: { type: 'string', default: '5000' },
    seeds: { type: 'string', default: '1' },
    tail: { type: 'string', default: '120' },
    verbose: { type: 'boolean', default: false },
    leases: { type: 'boolean', default: false },
    homes: { type: 'boolean', default: false },
    cessions: { type: 'string' },
    targets: { type: 'string' },
  },
});

/** What takes the place of what a seed would choose. */
function fixed(): Partial<Swarm> {
  const { targets } = values;
  const cessions = Number(values.cessions ?? 0);
  if (!(cessions >= 0 && cessions <= 1)) throw new Error('--cessions is a probability');
  if (targets !== undefined && targets !== '1' && targets !== '2') throw new Error('--targets is 1 or 2');
  return {
    ...(values.cessions === undefined ? {} : { cessions }),
    ...(targets === undefined ? {} : { targets: targets === '1' ? 1 : 2 }),
  };
}

/** What a life has come to: a line for people, and what is told of it on demand. */
async function lived(seed: number) {
  const steps = Number(values.steps);
  if (values.leases) {
    const { turns, lastedMs, trace, events, acts, ...report } = await new LeaseWorld(seed).run(steps);
    const votes = acts['failover start --ask-witness'] ?? 0;
    const said = `${turns} steps, ${Math.round(lastedMs / 1000)} s, ${votes} failovers by votes, trace ${trace}`;
    return { ...report, said, details: { events, acts } };
  }
  if (values.homes) {
    const { turns, lastedMs, trace, events, acts, ...report } = await new HomeWorld(seed).run(steps);
    const said = `${turns} steps, ${Math.round(lastedMs / 1000)} s, ${acts.adopt ?? 0} times adopted, trace ${trace}`;
    return { ...report, said, details: { events, acts } };
  }
  const { trace, points, pointsChecked, outrun, cessions, ...report } = await new World(
    seed,
    {},
    fixed(),
  ).run(steps);
  const said = `${report.steps} steps, ${points} points acknowledged, ${pointsChecked} read, ${outrun} times outrun, ${cessions} times ceded, trace ${trace}`;
  return { ...report, said, details: { events: report.events, failures: report.failures } };
}

const first = Number(values.seed);
for (let seed = first; seed < first + Number(values.seeds); seed++) {
  const { said, details, violation, ...report } = await lived(seed);
  console.log(`seed ${seed}: ${said}`);
  if (values.verbose) console.log(JSON.stringify(details, null, 1));
  if (violation === undefined) continue;
  console.log(report.recent.slice(-Number(values.tail)).join('\n'));
  console.log(`seed ${seed} found: ${violation}`);
  process.exitCode = 1;
  break;
}
