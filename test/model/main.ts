import { readFileSync, writeFileSync } from 'node:fs';
import { type ExplorationName, type Explored, explored, LEASES, TENURE } from './explorations.ts';
import { FAILOVER_DOCUMENT, withStates } from './states-written.ts';

/** `npm run model`: walks through every exploration at normal size, and writes what each has come to into docs/failover.md. */
const found = new Map<string, Explored>();
// A document without a place for it is found out now and not at the end.
withStates(readFileSync(FAILOVER_DOCUMENT, 'utf8'), found);
for (const name of [...Object.keys(TENURE), ...Object.keys(LEASES)] as ExplorationName[]) {
  const exploration = explored(name, ({ normal }) => normal);
  process.stdout.write(`${name}: ${exploration.states} states, ${exploration.steps} steps\n`);
  if (exploration.found) throw new Error(JSON.stringify(exploration.found, null, 1));
  found.set(name, exploration);
}
writeFileSync(FAILOVER_DOCUMENT, withStates(readFileSync(FAILOVER_DOCUMENT, 'utf8'), found));
