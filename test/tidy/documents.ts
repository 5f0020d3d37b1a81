import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemCodeOf } from '../../src/lib/errors.ts';
import { ROOT, type Violation } from './sources.ts';

export interface Document {
  readonly path: string;
  readonly text: string;
}

/** Every text file that git tracks. */
export function readTracked(): Document[] {
  const paths = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' }).split('\0');
  return paths
    .filter((path) => path !== '')
    .flatMap((path) => {
      const text = readText(path);
      return text === undefined || text.includes('\0') ? [] : [{ path, text }];
    });
}

/** Undefined for a file that git still lists but that is gone from the work tree. */
function readText(path: string): string | undefined {
  try {
    return readFileSync(join(ROOT, path), 'utf8');
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** A document has one title, and it comes first. */
export function checkTitles(documents: readonly Document[]): Violation[] {
  return documents
    .filter(({ path }) => path.endsWith('.md'))
    .flatMap(({ path, text }) => {
      const prose = text.replace(/^(```|~~~).*?^\1/gms, '');
      const titles = prose.split('\n').filter((line) => /^# /.test(line)).length;
      if (titles !== 1) return [{ where: path, what: `${titles} titles; a document has one` }];
      return text.startsWith('# ') ? [] : [{ where: path, what: 'the title is not the first line' }];
    });
}

/** Directories that exist on somebody's machine only. */
const MACHINE_PATH = /(?<![\w.~$})>\]/-])\/(?:work|home|Users)\/[\w.-]+/;
const REGISTRY_HOST = /\bregistry\.[a-z]+\.(?:org|com|net)\b/;

export function checkMachineTraces(documents: readonly Document[]): Violation[] {
  return documents.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => {
      const match = MACHINE_PATH.exec(line) ?? REGISTRY_HOST.exec(line);
      return match
        ? [{ where: `${path}:${index + 1}`, what: `${match[0]} names one machine or one host` }]
        : [];
    }),
  );
}

/** Written by a program, of runs that have been: `npm run test:full` writes it anew. */
const RESULTS = 'docs/results.md';
const TEST_FILE = /(?<![*.\w/-])[\w-][\w./-]*\.test\.ts\b/g;
/** As tables of facts name a test: `folder/file`, and of its tests those in whose names stands what is quoted. */
const TEST_OF_FACT = /`([a-z-]+\/[a-z-]+|test\/contract\/[a-z-]+)`((?:, «[^»]+»)*)/g;

/** A test that a document rests on exists. */
export function checkTestsNamed(documents: readonly Document[]): Violation[] {
  const tests = documents.filter(({ path }) => path.startsWith('test/'));
  return documents
    .filter(({ path }) => path.endsWith('.md') && path !== RESULTS)
    .flatMap(({ path, text }) =>
      text.split('\n').flatMap((line, index) => {
        const files = line.match(TEST_FILE) ?? [];
        const missing = files.filter((file) => !tests.some((test) => `/${test.path}`.endsWith(`/${file}`)));
        const facts = line.startsWith('| ') ? [...line.matchAll(TEST_OF_FACT)] : [];
        const wrong = facts.flatMap(([, name = '', quoted = '']) => wrongFact(tests, name, quoted));
        return [...missing, ...wrong].map((what) => ({
          where: `${path}:${index + 1}`,
          what: `there is no test ${what}`,
        }));
      }),
    );
}

function wrongFact(tests: readonly Document[], name: string, quoted: string): string[] {
  const [folder] = name.split('/');
  const isTest = tests.some(({ path }) => path.split('/')[2] === folder) || folder === 'test';
  if (!isTest) return [];
  const meant = tests.filter(
    ({ path }) => /^(test\/(?:unit|platform)\/)?(.*?)(\.full)?(\.test)?\.ts$/.exec(path)?.[2] === name,
  );
  if (meant.length === 0) return [name];
  // What both an interface and its tests are for is told in the folder of contracts.
  const texts = [...meant, ...tests.filter(({ path }) => path.startsWith('test/contract/'))];
  return [...quoted.matchAll(/«([^»]+)»/g)]
    .filter(([, words]) => !texts.some(({ text }) => text.includes(words!)))
    .map(([words]) => `${name}, ${words}`);
}
