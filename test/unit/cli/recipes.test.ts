import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { copyTypeFromFile } from '../../../src/cli/copy-type-description.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { checkPolicy, Zones } from '../../../src/recovery-point/index.ts';

const RECIPES = join(import.meta.dirname, '..', '..', '..', 'recipes');

test('S0.6 every recipe is a copy type that a policy takes, and the list of them has them all', async () => {
  const names = (await readdir(RECIPES)).filter((name) => name.endsWith('.json'));
  assert.ok(names.length >= 2);
  const list = await readFile(join(RECIPES, 'README.md'), 'utf8');
  for (const name of names) {
    assert.ok(list.includes(`\`${name}\``), name);
    const type = await copyTypeFromFile(nodeFiles, join(RECIPES, name), 'ready');
    const retention = { types: { crash: 1, ready: 1 } };
    checkPolicy({ schedules: [], copyTypes: [type], retention }, 0, new Zones());
  }
});
