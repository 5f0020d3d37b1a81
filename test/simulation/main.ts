import { parseArgs } from 'node:util';
import { World } from './world.ts';

/** `npm run sim -- --seed N --steps M --seeds K`: runs K seeds from N on, M steps each; stops at the first that fails. */
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    steps: { type: 'string', default: '5000' },
    seeds: { type: 'string', default: '1' },
    tail: { type: 'string', default: '120' },
    verbose: { type: 'boolean', default: false },
  },
});
const first = Number(values.seed);
for (let seed = first; seed < first + Number(values.seeds); seed++) {
  const report = await new World(seed).run(Number(values.steps));
  const { steps, trace, points, pointsChecked, outrun, cessions, violation } = report;
  console.log(
    `seed ${seed}: ${steps} steps, ${points} points acknowledged, ${pointsChecked} read, ${outrun} times outrun, ${cessions} times ceded, trace ${trace}`,
  );
  if (values.verbose)
    console.log(JSON.stringify({ events: report.events, failures: report.failures }, null, 1));
  if (violation === undefined) continue;
  console.log(report.recent.slice(-Number(values.tail)).join('\n'));
  console.log(`seed ${seed} found: ${violation}`);
  process.exitCode = 1;
  break;
}
