import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { errorsDocument, readCatalogues } from '../scripts/errors-doc.ts';
import { failoverDocument } from '../scripts/failover-doc.ts';
import { planTypes } from '../scripts/plan-types.ts';
import { buildProgram } from '../src/cli/command-line.ts';
import type { World } from '../src/cli/index.ts';
import { checkClockAndChance, checkConsole, checkLengths, checkSilences } from './tidy/bans.ts';
import { checkCommands } from './tidy/commands.ts';
import { checkMachineTraces, checkTestsNamed, checkTitles, readTracked } from './tidy/documents.ts';
import { checkDeadExports, checkDoors } from './tidy/exports.ts';
import { checkFullSizeOnly } from './tidy/full-size.ts';
import { checkImports, checkOutsideWorld, checkRooms, checkTable, parseImportTable } from './tidy/imports.ts';
import { ROOT, readSources, type Violation } from './tidy/sources.ts';

const sources = readSources();
const tracked = readTracked();
const table = parseImportTable(readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8'));

/** Commands that are only looked at touch nothing of it. */
const NOWHERE = {} as World;

function assertNone(violations: readonly Violation[]): void {
  const list = violations.map(({ where, what }) => `${where}: ${what}`);
  assert.equal(list.length, 0, `${list.length} violations:\n${list.join('\n')}`);
}

test('the import table has a row for every folder and points down only', () => {
  const folders = readdirSync(join(ROOT, 'src'), { withFileTypes: true });
  assertNone(
    checkTable(
      table,
      folders.filter((entry) => entry.isDirectory()).map(({ name }) => name),
    ),
  );
});

test('imports keep to the table and enter folders by their index.ts', () => {
  assertNone(checkImports(sources, table));
});

test('the rooms of a folder point one way', () => {
  assertNone(checkRooms(sources));
});

test('files, sockets and processes are opened only by the folders meant for it', () => {
  assertNone(checkOutsideWorld(sources));
});

test('nobody asks for the time or for chance but lib/clock and lib/random', () => {
  assertNone(checkClockAndChance(sources));
});

test('nothing silences the compiler, swallows an error or postpones work', () => {
  assertNone(checkSilences(sources));
});

test('only programs write to the console', () => {
  assertNone(checkConsole(sources));
});

test('files and functions of src are of modest length', () => {
  assertNone(checkLengths(sources));
});

test('every folder of src opens with a comment on what is behind its door', () => {
  assertNone(checkDoors(sources));
});

test('nothing is exported that nobody imports', () => {
  assertNone(checkDeadExports(sources));
});

test('an error code belongs to one folder and has a remedy', async () => {
  const owners = new Map<string, string>();
  const violations: Violation[] = [];
  for (const { folder, name, catalogue } of await readCatalogues()) {
    for (const [code, { remedy }] of Object.entries(catalogue)) {
      const where = `${name} of src/${folder}`;
      const owner = owners.get(code);
      if (owner !== undefined) violations.push({ where, what: `${code} is also declared by ${owner}` });
      if (!/^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/.test(code))
        violations.push({ where, what: `${code} is not UPPER_SNAKE` });
      if (!/\S.*[.!?]$/s.test(remedy))
        violations.push({ where, what: `the remedy of ${code} is not a sentence` });
      owners.set(code, where);
    }
  }
  assertNone(violations);
});

test('docs/errors.md equals the catalogues (npm run docs writes it)', async () => {
  const written = readFileSync(join(ROOT, 'docs', 'errors.md'), 'utf8');
  assert.ok(
    written === errorsDocument(await readCatalogues()),
    'docs/errors.md is out of date: run `npm run docs`',
  );
});

test('docs/failover.md shows the states that the code has (npm run docs writes them)', () => {
  const written = readFileSync(join(ROOT, 'docs', 'failover.md'), 'utf8');
  assert.ok(written === failoverDocument(written), 'docs/failover.md is out of date: run `npm run docs`');
});

test('types/plan.d.ts says what the package exports (npm run docs writes it)', () => {
  const written = readFileSync(join(ROOT, 'types', 'plan.d.ts'), 'utf8');
  assert.ok(written === planTypes(), 'types/plan.d.ts is out of date: run `npm run docs`');
});

test('each capability is proven by every run of the tests', () => {
  assertNone(checkFullSizeOnly(tracked));
});

test('the tests that documents rest on exist', () => {
  assertNone(checkTestsNamed(tracked));
});

test('the commands that documents and remedies name exist, with their options', () => {
  assertNone(
    checkCommands(
      tracked,
      buildProgram(NOWHERE, false, () => undefined),
    ),
  );
});

test('a document has one title', () => {
  assertNone(checkTitles(tracked));
});

test('no tracked file names a directory of one machine or the host of a package registry', () => {
  assertNone(checkMachineTraces(tracked));
});
