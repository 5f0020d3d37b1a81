import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { type ExplorationName, explored } from '../model/explorations.ts';
import { statesWritten } from '../model/states-written.ts';
import { noteCount, sized, testSize } from './size.ts';

/**
 * Walks through one exploration and finds nothing wrong; prints how many states it has come to, which is what docs/failover.md says of
 * it. `sights`: what it must have come by.
 */
export function explores(t: TestContext, name: ExplorationName, sights: readonly string[] = []): void {
  const { states, steps, seen, found } = explored(name, sized);
  t.diagnostic(`${name}: ${states} states, ${steps} steps between them`);
  const [capability] = t.name.match(/\bS\d+\.\d+\b/) ?? [];
  noteCount(`${capability}: ${states} states («${name}»)`);
  assert.equal(found, undefined, JSON.stringify(found, null, 1));
  for (const sight of sights) assert.ok(seen[sight]! > 0, `«${name}» has never come by this: ${sight}`);
  // An exploration that ends early has shown nothing.
  if (testSize() === 'normal')
    assert.equal(
      statesWritten(name),
      states,
      `run \`npm run model\`: docs/failover.md says another number of «${name}»`,
    );
}
