import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemCodeOf } from '../src/lib/errors.ts';
import { capabilityIdsIn } from './capability-id.ts';
import { type Commit, commitLine } from './machine.ts';

/** A test of a file that stands at its top, or names a capability. */
export interface TestResult {
  readonly name: string;
  readonly durationMs: number;
  readonly passed: boolean;
  /** The lines that `sized()` printed in this test. */
  readonly counts?: readonly string[];
}

export interface FileResult {
  readonly passed: boolean;
  /** What was tested, on what and on which day. */
  readonly commit: string;
  readonly machine: string;
  readonly date: string;
  readonly durationMs: number;
  readonly tests: readonly TestResult[];
  /** The lines that `sized()` printed in this file, outside of the tests above. */
  readonly counts: readonly string[];
}

/** The last result of each test file at full size, by its path relative to the repository. */
export interface FullResults {
  readonly files: Readonly<Record<string, FileResult>>;
}

export async function readResults(path: string): Promise<FullResults> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return { files: {} };
    throw error;
  }
}

/** Whether a file need not be run again. Uncommitted changes have no name by which to tell whether they are the same. */
export function hasPassed(result: FileResult | undefined, commit: Commit): boolean {
  return result?.passed === true && !commit.modified && result.commit === commitLine(commit);
}

export async function writeResults(path: string, results: FullResults): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify(results, null, 1)}\n`);
}

/** What `sized()` printed, and in which test: its name below those that it is a part of, «a > b > c». */
export interface LoggedCount {
  readonly line: string;
  readonly test?: string;
}

/** What `sized()` wrote to its log, by test file as it named itself. */
export async function readCounts(logPath: string): Promise<Map<string, LoggedCount[]>> {
  const counts = new Map<string, LoggedCount[]>();
  for (const text of (await readFile(logPath, 'utf8')).split('\n')) {
    if (text === '') continue;
    const { file, ...logged }: LoggedCount & { file: string } = JSON.parse(text);
    counts.set(file, [...(counts.get(file) ?? []), logged]);
  }
  return counts;
}

/** Gives each count to the innermost test that it was printed in and whose name has its capability; what is left is the file's. */
export function withCounts(
  tests: readonly TestResult[],
  logged: readonly LoggedCount[],
): Pick<FileResult, 'tests' | 'counts'> {
  const counted = tests.map((test) => ({ ...test, counts: [] as string[] }));
  const counts: string[] = [];
  for (const { line, test = '' } of logged) {
    const [capability = ''] = capabilityIdsIn(line);
    const depth = ({ name }: TestResult) =>
      capabilityIdsIn(name).includes(capability) ? ` > ${test} > `.lastIndexOf(` > ${name} > `) : -1;
    const [innermost] = counted.filter((one) => depth(one) >= 0).sort((a, b) => depth(b) - depth(a));
    (innermost?.counts ?? counts).push(line);
  }
  return {
    tests: counted.map(({ counts: own, ...test }) => (own.length > 0 ? { ...test, counts: own } : test)),
    counts,
  };
}

/** `docs/results.md`: the last full run of each test, capability by capability; `all` are the test files that there are. */
export function resultsDocument(results: FullResults, all: readonly string[]): string {
  const rows: { capability: string; row: string }[] = [];
  const runs = new Set<string>();
  let others = 0;
  let othersFailed = 0;
  for (const path of all) {
    const file = results.files[path];
    if (!file) continue;
    runs.add(`- ${file.commit}, ${file.date}: ${file.machine}`);
    for (const test of file.tests) {
      const capabilities = [...new Set(capabilityIdsIn(test.name))];
      if (capabilities.length === 0) {
        others += 1;
        if (!test.passed) othersFailed += 1;
      }
      for (const capability of capabilities) {
        const counts = [...(test.counts ?? []), ...file.counts].filter((line) =>
          line.startsWith(`${capability}:`),
        );
        const cells = [
          capability,
          escapeCell(`${test.name} (${path})`),
          escapeCell(counts.map((line) => line.slice(capability.length + 2)).join('; ')),
          `${(test.durationMs / 1000).toFixed(1)} s`,
          test.passed ? 'passed' : '**failed**',
          file.commit,
        ];
        rows.push({ capability, row: `| ${cells.join(' | ')} |` });
      }
    }
  }
  rows.sort((a, b) => byCapability(a.capability, b.capability));
  const missing = all.filter((path) => results.files[path] === undefined);
  return [
    '# Results at full size',
    '',
    'Written by `npm run test:full` from `results.json`; do not edit by hand. A capability stands here once for every test that',
    'names it, with the commit on which that test was last run at its full count. A count that is meant for a file as a whole stands',
    'with each of its tests.',
    '',
    ...[...runs].sort(),
    '',
    `Tests without a capability: ${others - othersFailed} passed, ${othersFailed} failed.`,
    missing.length === 0 ? 'Every test file has been run.' : `Never run at full size: ${missing.join(', ')}.`,
    '',
    '| capability | test | counts | duration | result | commit |',
    '|---|---|---|---|---|---|',
    ...rows.map(({ row }) => row),
    '',
  ].join('\n');
}

function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}

/** S0.2 before S0.10. */
function byCapability(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
