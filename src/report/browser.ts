import { userInfo } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { type Clock, withTimeout } from '../lib/clock.ts';
import { isFailure, messageOf } from '../lib/errors.ts';
import { type FileSystem, readSmallFile } from '../lib/files.ts';
import { lackOf } from '../lib/host-files.ts';
import { runCommand } from '../lib/processes.ts';
import { newId, type Random } from '../lib/random.ts';
import { reportFailure } from './errors.ts';

/** Programs that print pages, the smallest first. */
const NAMES = [
  'chromium-headless-shell',
  'chromium',
  'chromium-browser',
  'google-chrome-stable',
  'google-chrome',
];
const LIMIT_MS = 60_000;
const PDF_BYTES_MAX = 64 * 1024 * 1024;

/** The browser that was named, or the first one on the path. Throws REPORT_NO_BROWSER. */
export async function findBrowser(named: string | undefined, searchPath: string): Promise<string> {
  if (named !== undefined && isAbsolute(named)) {
    if ((await lackOf(named, 'enter')) === undefined) return named;
    throw reportFailure('REPORT_NO_BROWSER', `${named} cannot be run`);
  }
  const directories = searchPath.split(':').filter((directory) => isAbsolute(directory));
  const names = named === undefined ? NAMES : [named];
  for (const name of names) {
    for (const directory of directories) {
      const path = join(directory, name);
      if ((await lackOf(path, 'enter')) === undefined) return path;
    }
  }
  throw reportFailure('REPORT_NO_BROWSER', `no browser is on the path; looked for ${names.join(', ')}`);
}

/**
 * A page as PDF, printed by a browser that runs for this alone: a process of its own with a profile of its own in `scratchDirectory`, and an end
 * after a minute. As root, where that is allowed, it runs in network and process namespaces of its own, so that there is no network to be reached and nothing of it is left.
 * Throws REPORT_NOT_PRINTED; the scratch files are gone in any case.
 */
export async function printPdf(
  tools: { readonly files: FileSystem; readonly clock: Clock; readonly random: Random },
  o: {
    readonly page: string;
    readonly browser: string;
    readonly scratchDirectory: string;
    readonly limitMs?: number;
  },
): Promise<Buffer> {
  const { files, clock, random } = tools;
  const { limitMs = LIMIT_MS } = o;
  const directory = join(o.scratchDirectory, `warmsite-print-${newId(clock, random)}`);
  const [page, print] = [join(directory, 'report.html'), join(directory, 'report.pdf')];
  await files.makeDirectory(directory);
  try {
    const handle = await files.open(page, 'create');
    try {
      await handle.write(Buffer.from(o.page), 0);
    } finally {
      await handle.close();
    }
    const shell = await isolatingShell();
    const [command, ...args] = [...shell, ...commandOf(o.browser, { directory, page, print })];
    const late = () =>
      reportFailure('REPORT_NOT_PRINTED', `${o.browser} was not done after ${limitMs / 1000} s`);
    await withTimeout(
      clock,
      limitMs,
      (signal) => runCommand(command!, args, { signal, cwd: directory, killSignal: 'SIGKILL' }),
      late,
    );
    const bytes = await readSmallFile(files, print, PDF_BYTES_MAX);
    if (bytes?.subarray(0, 5).toString('latin1') === '%PDF-') return bytes;
    throw reportFailure('REPORT_NOT_PRINTED', `${o.browser} ended well and has printed no PDF`);
  } catch (error) {
    if (!isFailure(error, 'PROCESS_FAILED', 'TOOL_MISSING')) throw error;
    throw reportFailure('REPORT_NOT_PRINTED', messageOf(error), { cause: error });
  } finally {
    await files.removeDirectory(directory);
  }
}

function commandOf(
  browser: string,
  { directory, page, print }: { readonly directory: string; readonly page: string; readonly print: string },
): string[] {
  return [
    ...[browser, '--headless', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-pdf-header-footer'],
    ...[
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-extensions',
    ],
    ...[
      '--disable-dev-shm-usage',
      '--host-resolver-rules=MAP * ~NOTFOUND',
      `--user-data-dir=${join(directory, 'profile')}`,
    ],
    // Chromium's own sandbox refuses to be root's. What is printed is our own page, which has no script and a policy that admits none.
    ...(isRoot() ? ['--no-sandbox'] : []),
    ...[`--print-to-pdf=${print}`, `file://${page}`],
  ];
}

const NAMESPACES = ['unshare', '--net', '--pid', '--fork', '--kill-child', '--mount-proc'];

/**
 * What root puts before a program so that it has no network, and ends with all its children when it is killed. Nothing where this root may not
 * make namespaces (in many containers): the policy of the page and the resolver's rule remain.
 */
async function isolatingShell(): Promise<readonly string[]> {
  if (!isRoot()) return [];
  const [command, ...args] = NAMESPACES;
  try {
    await runCommand(command!, [...args, 'true']);
    return NAMESPACES;
  } catch (error) {
    if (!isFailure(error, 'PROCESS_FAILED', 'TOOL_MISSING')) throw error;
    return [];
  }
}

function isRoot(): boolean {
  return userInfo().uid === 0;
}
