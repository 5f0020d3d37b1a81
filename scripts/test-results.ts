import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemCodeOf } from '../src/lib/errors.ts';
import { type Commit, commitLine, type Machine } from './machine.ts';

/** One top-level test of a file. */
export interface TestResult {
  readonly name: string;
  readonly durationMs: number;
  readonly passed: boolean;
}

export interface FileResult {
  readonly passed: boolean;
  readonly durationMs: number;
  readonly tests: readonly TestResult[];
  /** The lines that `sized()` printed in this file. */
  readonly counts: readonly string[];
}

/** Results of a full run by test file, path relative to the repository; they hold for one commit only. */
export interface FullResults {
  readonly commit: string;
  readonly files: Readonly<Record<string, FileResult>>;
}

/** What an earlier full run of this commit left; nothing when the commit or the work tree is another one. */
export async function readResults(path: string, commit: Commit): Promise<FullResults> {
  const none: FullResults = { commit: commit.id, files: {} };
  // Uncommitted changes have no name by which to tell whether they are the same as last time.
  if (commit.modified) return none;
  try {
    const results: FullResults = JSON.parse(await readFile(path, 'utf8'));
    return results.commit === commit.id ? results : none;
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT' || error instanceof SyntaxError) return none;
    throw error;
  }
}

export async function writeResults(path: string, results: FullResults): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify(results, null, 2)}\n`);
}

/** The lines that `sized()` wrote to its log, by test file as it named itself. */
export async function readCounts(logPath: string): Promise<Map<string, string[]>> {
  const counts = new Map<string, string[]>();
  for (const text of (await readFile(logPath, 'utf8')).split('\n')) {
    if (text === '') continue;
    const { file, line }: { file: string; line: string } = JSON.parse(text);
    counts.set(file, [...(counts.get(file) ?? []), line]);
  }
  return counts;
}

const CAPABILITY = /\bS\d+\.\d+[a-z]?\b/g;

/** `docs/results.md`: what the full run of a commit showed, capability by capability. */
export function resultsDocument(
  results: FullResults,
  about: { machine: Machine; commit: Commit; date: string },
): string {
  const { machine, commit, date } = about;
  const rows: { capability: string; row: string }[] = [];
  let others = 0;
  let othersFailed = 0;
  for (const [path, file] of Object.entries(results.files)) {
    for (const test of file.tests) {
      const capabilities = [...new Set(test.name.match(CAPABILITY) ?? [])];
      if (capabilities.length === 0) {
        others += 1;
        if (!test.passed) othersFailed += 1;
      }
      for (const capability of capabilities) {
        const counts = file.counts.filter((line) => line.startsWith(`${capability}:`));
        const cells = [
          capability,
          escapeCell(`${test.name} (${path})`),
          escapeCell(counts.map((line) => line.slice(capability.length + 2)).join('; ')),
          `${(test.durationMs / 1000).toFixed(1)} s`,
          test.passed ? 'passed' : '**failed**',
        ];
        rows.push({ capability, row: `| ${cells.join(' | ')} |` });
      }
    }
  }
  rows.sort((a, b) => byCapability(a.capability, b.capability));
  return [
    '# Results of the full test run',
    '',
    'Written by `npm run test:full`; do not edit by hand. A capability stands here once for every test that names it.',
    '',
    `- Date: ${date}`,
    `- Commit: ${commitLine(commit)}`,
    `- Machine: ${machine.cores} cores (${machine.processor}), ${machine.memoryGib} GiB of memory`,
    `- Kernel ${machine.kernel}, QEMU ${machine.qemu}, Node ${machine.node}`,
    `- Tests without a capability: ${others - othersFailed} passed, ${othersFailed} failed`,
    '',
    '| capability | test | counts | duration | result |',
    '|---|---|---|---|---|',
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
