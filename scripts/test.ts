import { globSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { run } from 'node:test';
import { spec, type TestEvent } from 'node:test/reporters';
import { systemClock } from '../src/lib/clock.ts';
import { capabilityIdsIn, isCapabilityId } from './capability-id.ts';
import { runChecks } from './check.ts';
import { commitLine, describeCommit, describeMachine, machineLine } from './machine.ts';
import { RunDirectory } from './run-directory.ts';
import {
  type FileResult,
  type FullResults,
  hasPassed,
  readCounts,
  readResults,
  resultsDocument,
  type TestResult,
  withCounts,
  writeResults,
} from './test-results.ts';

/**
 * `npm test -- [--full] [filter…]`: the checks, then every test. A filter is a part of a file's path or the
 * id of a capability (S0.11); with one, the checks are left out. `--full` takes the full counts and keeps the last result
 * of each file in docs/results.json, so that an interrupted run of the same commit can be taken up again; docs/results.md
 * shows them.
 */
const ROOT = dirname(import.meta.dirname);
const RESULTS = 'docs/results.json';
const DOCUMENT = 'docs/results.md';
/** Platform tests start virtual machines without hardware support: more at once would only slow each other. */
const CONCURRENCY = 2;
const FILE_LIMIT_MS = { normal: 15 * 60_000, full: 8 * 3_600_000 };
/** Tests that `npm test` leaves to the full size; test/tidy holds that other tests prove the same capabilities. */
const FULL_SIZE_ONLY = '.full.test.ts';

async function main(args: readonly string[]): Promise<number> {
  const startedMs = systemClock.monotonicMs();
  const size = args.includes('--full') ? 'full' : 'normal';
  const filters = args.filter((arg) => !arg.startsWith('--'));
  const unknown = args.filter((arg) => arg.startsWith('--') && arg !== '--full');
  if (unknown.length > 0) {
    console.error(`Unknown option ${unknown.join(', ')}. Usage: npm test -- [--full] [filter…]`);
    return 2;
  }

  const all = globSync('test/**/*.test.ts', { cwd: ROOT }).sort(quickFirst);
  const selected = await select(all, filters, size);
  const commit = await describeCommit(ROOT, [DOCUMENT, RESULTS]);
  const earlier = size === 'full' ? await readResults(join(ROOT, RESULTS)) : undefined;
  const files = selected.filter((file) => !hasPassed(earlier?.files[file], commit));

  const machine = machineLine(await describeMachine());
  console.log(machine);
  console.log(`commit ${commitLine(commit)}`);
  console.log(plan(size, selected.length, files.length, filters));
  const left = filters.length > 0 ? [] : all.filter((file) => !selected.includes(file));
  if (left.length > 0) console.log(`Left to \`npm run test:full\`: ${left.join(', ')}\n`);
  if (selected.length === 0) return 1;

  const checked = filters.length > 0 || (await runChecks(ROOT));
  const log = join(ROOT, '.cache', `sizes-${process.pid}.jsonl`);
  await mkdir(dirname(log), { recursive: true });
  await writeFile(log, '');
  process.env.WARMSITE_TEST_SIZE = size;
  process.env.WARMSITE_SIZE_LOG = log;
  // Each file is a process: what it imports is compiled once.
  process.env.NODE_COMPILE_CACHE = join(ROOT, '.cache', 'compiled');

  const keeper =
    earlier === undefined
      ? undefined
      : new ResultKeeper(earlier, log, { commit: commitLine(commit), machine });
  const directory = RunDirectory.make();
  process.env.TMPDIR = directory.path;
  const memory = RunDirectory.makeInMemory();
  if (memory) process.env.WARMSITE_TEST_MEMORY = memory.path;
  const directories = memory ? [directory, memory] : [directory];
  const passed =
    files.length === 0 || (await runTests({ files, filters, size, startedMs, checked, keeper, directories }));
  if (keeper !== undefined) await writeFile(join(ROOT, DOCUMENT), resultsDocument(keeper.results, all));
  await rm(log, { force: true });
  return passed && checked ? 0 : 1;
}

/** Quick tests first: what is wrong shows early, and the printed order is the order of the files. */
function quickFirst(a: string, b: string): number {
  const rank = (path: string) =>
    path.startsWith('test/platform/') ? 2 : path.startsWith('test/unit/') ? 0 : 1;
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}

/** A file that is left to the full size is run at any size by whom asks for it. */
async function select(
  all: readonly string[],
  filters: readonly string[],
  size: 'normal' | 'full',
): Promise<string[]> {
  if (filters.length === 0) return all.filter((file) => size === 'full' || !file.endsWith(FULL_SIZE_ONLY));
  const selected: string[] = [];
  for (const file of all) {
    const text = await readFile(join(ROOT, file), 'utf8');
    const named = (filter: string) =>
      isCapabilityId(filter) ? namePattern(filter).test(text) : file.includes(filter);
    if (filters.some(named)) selected.push(file);
  }
  return selected;
}

function namePattern(capability: string): RegExp {
  return new RegExp(`\\b${capability.replace('.', '\\.')}\\b`);
}

function plan(size: string, selected: number, toRun: number, filters: readonly string[]): string {
  if (selected === 0) return `No test file matches ${filters.join(' ') || 'test/**/*.test.ts'}.`;
  const filesText = toRun === 1 ? '1 test file' : `${toRun} test files`;
  const parts = [
    filters.length > 0 ? `${filesText} that match ${filters.join(' or ')}, without checks` : filesText,
    size === 'normal' ? 'reduced counts, each printed where it applies' : 'full counts',
  ];
  if (toRun < selected) parts.push(`${selected - toRun} passed at this commit before and are not repeated`);
  return `${parts.join('; ')}\n`;
}

interface Runs {
  readonly files: readonly string[];
  readonly filters: readonly string[];
  readonly size: 'normal' | 'full';
  readonly startedMs: number;
  readonly checked: boolean;
  readonly keeper: ResultKeeper | undefined;
  readonly directories: readonly RunDirectory[];
}

/** Runs the files under Node's test runner, whose closing lines are the last that is printed. */
async function runTests(runs: Runs): Promise<boolean> {
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  // For good: who asks twice must not end this process before it has ended what its tests have started.
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  const capabilities = runs.filters.filter((filter) => isCapabilityId(filter));
  const wholeFiles = capabilities.length < runs.filters.length || capabilities.length === 0;
  const events = run({
    files: runs.files.map((file) => join(ROOT, file)),
    concurrency: CONCURRENCY,
    timeout: FILE_LIMIT_MS[runs.size],
    signal: stop.signal,
    ...(wholeFiles ? {} : { testNamePatterns: capabilities.map(namePattern) }),
  });

  let failed = false;
  let testsRun = 0;
  const fileTimes: { readonly file: string; readonly durationMs: number }[] = [];
  const objections: string[] = runs.checked ? [] : ['a check failed: see the head of this output'];
  async function* watched(source: AsyncIterable<TestEvent>): AsyncGenerator<TestEvent> {
    let closing = false;
    for await (const event of source) {
      // What is broken off has no result, and the last one of it stays.
      if (!stop.signal.aborted) await runs.keeper?.observe(event);
      if (event.type === 'test:fail') failed = true;
      if (event.type === 'test:complete' && event.data.name === event.data.file)
        fileTimes.push({ file: event.data.name, durationMs: event.data.details.duration_ms });
      if (event.type === 'test:pass') {
        const { name, file, skip, todo } = event.data;
        if (name === file) objections.push(`no test ran in ${relative(ROOT, name)}`);
        else testsRun += 1;
        if (skip !== undefined || todo !== undefined) objections.push(`«${name}» was not run to its end`);
      }
      if (!closing && event.type === 'test:diagnostic' && event.data.file === undefined) {
        closing = true;
        if (testsRun === 0 && !failed) objections.push('no test ran');
        for (const left of await clear(runs.directories))
          objections.push(`left running, and ended now: ${left}`);
        const wallSeconds = (systemClock.monotonicMs() - runs.startedMs) / 1000;
        const wall = `wall time with checks ${wallSeconds.toFixed(1)} s`;
        for (const message of [...objections, slowest(fileTimes), wall]) {
          yield { type: 'test:diagnostic', data: { nesting: 0, message, level: 'info' } };
        }
      }
      yield event;
    }
  }
  try {
    for await (const text of Readable.from(watched(events)).compose(new spec())) process.stdout.write(text);
  } finally {
    // A run that was broken off comes to no closing lines.
    for (const left of await clear(runs.directories)) console.error(`left running, and ended now: ${left}`);
  }
  return !failed && objections.length === 0 && !stop.signal.aborted;
}

async function clear(directories: readonly RunDirectory[]): Promise<string[]> {
  const left: string[] = [];
  for (const directory of directories) left.push(...(await directory.clear()));
  return left;
}

/** Where the time of a run went: what to look at first when it has become too long. */
function slowest(times: readonly { readonly file: string; readonly durationMs: number }[]): string {
  const sorted = times.toSorted((a, b) => b.durationMs - a.durationMs).slice(0, 12);
  const texts = sorted.map(
    ({ file, durationMs }) => `${relative('test', relative(ROOT, file))} ${(durationMs / 1000).toFixed(0)} s`,
  );
  return `slowest files: ${texts.join(', ')}`;
}

/** Notes the result of each file as soon as the file has ended, so that nothing is lost by an interruption. */
class ResultKeeper {
  results: FullResults;
  readonly #logPath: string;
  readonly #about: Pick<FileResult, 'commit' | 'machine'>;
  readonly #tests = new Map<string, TestResult[]>();

  constructor(earlier: FullResults, logPath: string, about: Pick<FileResult, 'commit' | 'machine'>) {
    this.results = earlier;
    this.#logPath = logPath;
    this.#about = about;
  }

  async observe(event: TestEvent): Promise<void> {
    if (event.type !== 'test:complete') return;
    const { name, nesting, file, details } = event.data;
    // A contract suite stands in another file than the one that was run.
    const { entryFile = file } = event.data as { readonly entryFile?: string };
    if (entryFile === undefined) return;
    const tests = this.#tests.get(entryFile) ?? [];
    if (name !== entryFile) {
      const result = { name, durationMs: details.duration_ms, passed: details.passed };
      if (nesting === 0 || capabilityIdsIn(name).length > 0) this.#tests.set(entryFile, [...tests, result]);
      return;
    }
    const result: FileResult = {
      passed: details.passed && tests.length > 0 && tests.every((test) => test.passed),
      ...this.#about,
      date: new Date(systemClock.wallMs()).toISOString().slice(0, 10),
      durationMs: details.duration_ms,
      ...withCounts(tests, (await readCounts(this.#logPath)).get(entryFile) ?? []),
    };
    this.results = { files: { ...this.results.files, [relative(ROOT, entryFile)]: result } };
    await writeResults(join(ROOT, RESULTS), this.results);
  }
}

process.exitCode = await main(process.argv.slice(2));
