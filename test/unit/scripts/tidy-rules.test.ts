import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkClockAndChance, checkConsole, checkLengths, checkSilences } from '../../tidy/bans.ts';
import { checkMachineTraces, checkTestsNamed, checkTitles } from '../../tidy/documents.ts';
import { checkDeadExports, checkDoors } from '../../tidy/exports.ts';
import { checkFullSizeOnly } from '../../tidy/full-size.ts';
import {
  checkImports,
  checkOutsideWorld,
  checkRooms,
  checkTable,
  parseImportTable,
} from '../../tidy/imports.ts';
import { parseSource, type Source, type Violation } from '../../tidy/sources.ts';

// A rule that has never found anything proves nothing: each is shown what it forbids and what it must let pass.

type Rule = (sources: readonly Source[]) => Violation[];

const TABLE = parseImportTable(
  [
    '| folder | holds | may import |',
    '|---|---|---|',
    '| lib | | |',
    '| nbd | | lib |',
    '| cli | | nbd lib |',
  ].join('\n'),
);

function found(rule: Rule, files: Record<string, string>): string[] {
  const sources = Object.entries(files).map(([path, text]) => parseSource(path, text));
  return rule(sources).map(({ where, what }) => `${where}: ${what}`);
}

function assertForbids(rule: Rule, path: string, texts: readonly string[]): void {
  for (const text of texts)
    assert.equal(found(rule, { [path]: text }).length, 1, `must forbid in ${path}: ${text}`);
}

function assertAllows(rule: Rule, path: string, texts: readonly string[]): void {
  for (const text of texts)
    assert.deepEqual(found(rule, { [path]: text }), [], `must allow in ${path}: ${text}`);
}

test('the table must name every folder, and only rows above', () => {
  assert.deepEqual(checkTable(TABLE, ['lib', 'nbd', 'cli']), []);
  assert.equal(checkTable(TABLE, ['lib', 'qmp']).length, 1);
  assert.equal(
    checkTable(
      new Map([
        ['nbd', ['lib']],
        ['lib', []],
      ]),
      [],
    ).length,
    1,
  );
});

test('imports point down and come in by the door', () => {
  const rule: Rule = (sources) => checkImports(sources, TABLE);
  assertAllows(rule, 'src/cli/a.ts', [
    "import { a } from '../nbd/index.ts';",
    "import type { b } from '../lib/clock.ts';",
    "import { c } from './c.ts';",
    "import { connect } from 'node:net';",
    'const text = "import { a } from \'../nbd/wire.ts\'";',
  ]);
  assertForbids(rule, 'src/cli/a.ts', [
    "import { a } from '../nbd/wire.ts';",
    "export * from '../nbd/wire.ts';",
    "const nbd = await import('../nbd/wire.ts');",
    "type A = import('../nbd/wire.ts').A;",
    "import { size } from '../../test/support/size.ts';",
  ]);
  assertForbids(rule, 'src/nbd/a.ts', ["import type { A } from '../cli/index.ts';"]);
  assertForbids(rule, 'demo/main.ts', ["import { a } from '../src/nbd/wire.ts';"]);
  assertAllows(rule, 'test/unit/nbd/a.test.ts', ["import { a } from '../../../src/nbd/wire.ts';"]);
});

test('the rooms of a folder need each other one way only', () => {
  const base = { 'src/nbd/base/a.ts': '', 'src/nbd/c.ts': "import { b } from './rooms/b.ts';" };
  const down = { ...base, 'src/nbd/rooms/b.ts': "import { a } from '../base/a.ts';" };
  assert.deepEqual(found(checkRooms, down), []);
  const top = { 'src/nbd/top/d.ts': "import { b } from '../rooms/b.ts';" };
  assert.deepEqual(found(checkRooms, { ...down, ...top }), []);
  const ring = { 'src/nbd/base/a.ts': "import type { D } from '../top/d.ts';" };
  assert.equal(found(checkRooms, { ...down, ...top, ...ring }).length, 3);
});

test('sockets, files and processes stay in their folders', () => {
  const text = "import { readFile } from 'node:fs/promises';";
  assertForbids(checkOutsideWorld, 'src/replica/a.ts', [text, "import { connect } from 'node:net';"]);
  assertAllows(checkOutsideWorld, 'src/replica/a.ts', ["import { join } from 'node:path';"]);
  assertAllows(checkOutsideWorld, 'src/nbd/a.ts', [text]);
});

test('the time and chance are asked for in two files only', () => {
  assertForbids(checkClockAndChance, 'src/nbd/a.ts', [
    'const t = Date.now();',
    'const t = new Date();',
    'const t = performance.now();',
    'const t = Math.random();',
    'setTimeout(f, 1);',
    'globalThis.setTimeout(f, 1);',
    "import { setInterval } from 'node:test';",
    "import { scheduler } from 'node:timers/promises';",
    "import { randomUUID } from 'node:crypto';",
    'const t = AbortSignal.timeout(10);',
  ]);
  assertAllows(checkClockAndChance, 'src/nbd/a.ts', [
    'const t = new Date(clock.wallMs());',
    'socket.setTimeout(5);',
    "// Date.now() would jump\nconst t = 'Date.now()';",
  ]);
  assertAllows(checkClockAndChance, 'src/lib/clock.ts', ['const t = Date.now();']);
});

test('nothing is silenced', () => {
  assertForbids(checkSilences, 'src/nbd/a.ts', [
    'let a: any;',
    '// @ts-ignore\nf();',
    'function f() {\n  // TODO: later\n}',
    'try { f(); } catch {}',
    'p.catch(() => {});',
    'await p.catch(() => undefined);',
  ]);
  assertAllows(checkSilences, 'src/nbd/a.ts', [
    'const any = 1; // any of them',
    "const a = '// TODO';",
    'const a = `// TODO`;',
    'try { f(); } catch {\n  // Gone already: that is what was asked for.\n}',
    '// Whoever waits hears of it.\np.catch(() => undefined);',
    'if (a) await p;\n// How it ends changes nothing for anybody.\nelse p.catch(() => undefined);',
    'p.catch((error) => report(error));',
  ]);
});

test('the console belongs to programs', () => {
  assertForbids(checkConsole, 'src/nbd/a.ts', ["console.log('a');"]);
  assertAllows(checkConsole, 'src/cli/a.ts', ["console.log('a');"]);
  assertAllows(checkConsole, 'lab/a.ts', ["if (import.meta.main) { console.log('a'); }"]);
});

test('files and functions are short', () => {
  assertForbids(checkLengths, 'src/nbd/a.ts', [`function f() {${'\n'.repeat(120)}}`, '\n'.repeat(501)]);
  assertAllows(checkLengths, 'src/nbd/a.ts', ['\n'.repeat(500)]);
  assertAllows(checkLengths, 'test/a.ts', ['\n'.repeat(501)]);
});

test('a folder has a door that opens with a comment', () => {
  assertForbids(checkDoors, 'src/nbd/a.ts', ['export {};']);
  assertForbids(checkDoors, 'src/nbd/index.ts', ['/** Short. */\nexport {};']);
  assertAllows(checkDoors, 'src/nbd/index.ts', [`/*${'\n * line'.repeat(12)}\n */\nexport {};`]);
});

test('an export must reach somebody, through however many doors', () => {
  const files = {
    'src/nbd/a.ts':
      'export const used = 1; export const dead = 2; export interface Shown { a: 1 }\nexport type T = Shown;',
    'src/nbd/index.ts': "export { used as renamed, dead } from './a.ts'; export * from './b.ts';",
    'src/nbd/b.ts': 'export function viaStar() {} export function never() {}',
    'src/nbd/lonely.ts': 'const a = 1;',
    'src/cli/main.ts':
      "import { renamed, viaStar } from '../nbd/index.ts'; import type { T } from '../nbd/a.ts';",
  };
  assert.deepEqual(found(checkDeadExports, files), [
    'src/nbd/a.ts:1: dead is exported and nobody imports it',
    'src/nbd/b.ts:1: never is exported and nobody imports it',
    'src/nbd/lonely.ts: no file imports this file',
  ]);
});

test('a document has one title, code blocks aside', () => {
  const titles = (text: string) => checkTitles([{ path: 'a.md', text }]).length;
  assert.equal(titles('# One\n\n```sh\n# a comment\n```\n'), 0);
  assert.equal(titles('# One\n# Two\n'), 1);
  assert.equal(titles('none\n'), 1);
});

test('a test that a document names must exist, and the test that it quotes', () => {
  const tests = [
    { path: 'test/platform/nbd/a.full.test.ts', text: "test('all or nothing', () => {});" },
    { path: 'test/contract/disks.ts', text: "test('in the middle', () => {});" },
  ];
  const found = (text: string, path = 'docs/a.md') =>
    checkTestsNamed([...tests, { path, text }]).map(({ what }) => what);
  const named = 'see `test/platform/nbd/a.full.test.ts`, a.full.test.ts and *.full.test.ts';
  const quoted = '| `nbd/a`, «all or», «in the middle»; `test/contract/disks` | `bench/b` |';
  assert.deepEqual(found(`${named}\n${quoted}`), []);
  assert.deepEqual(found('b.test.ts, a.test.ts'), [
    'there is no test b.test.ts',
    'there is no test a.test.ts',
  ]);
  assert.deepEqual(found('| `nbd/b` |'), ['there is no test nbd/b']);
  assert.deepEqual(found('| `nbd/a`, «nothing», «gone» |'), ['there is no test nbd/a, «gone»']);
  assert.deepEqual(found('b.test.ts', 'docs/results.md'), []);
});

test('what only the full size would prove is found', () => {
  const file = (path: string, title: string) => ({ path, text: `test('${title}', () => {});` });
  const large = file('test/platform/a.full.test.ts', 'S0.1 S0.2 much of it');
  const [violation, ...others] = checkFullSizeOnly([
    large,
    file('test/platform/b.test.ts', 'S0.1 some of it'),
  ]);
  assert.match(violation!.what, /S0\.2\b/);
  assert.deepEqual(others, []);
  assert.deepEqual(checkFullSizeOnly([large, file('test/unit/c.test.ts', 'S0.2 S0.1')]), []);
});

test('traces of one machine are found', () => {
  const traces = (text: string) => checkMachineTraces([{ path: 'a.md', text }]).length;
  // Put together here, so that this file does not hold what the rule looks for.
  assert.equal(traces(['see ', 'home', 'ann', 'notes'].join('/')), 1);
  assert.equal(traces(['https:/', ['registry', 'example', 'org'].join('.')].join('/')), 1);
  assert.equal(traces('/var/lib/warmsite, ./work/a and <data>/work/b'), 0);
});
