import { globSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isFailure, messageOf } from '../src/lib/errors.ts';
import { runCommand } from '../src/lib/processes.ts';
import { licenceTable, readLicences } from './licences.ts';

/**
 * `npm run check`: everything that can be said about the sources without running them. Each check returns
 * what is wrong, an empty string when nothing is. `--print` prints the table of licences as well.
 */
interface Check {
  readonly name: string;
  readonly run: (root: string) => Promise<string>;
}

export const CHECKS: readonly Check[] = [
  { name: 'types', run: (root) => complaintsOf(root, 'tsc', ['--project', '.']) },
  {
    name: 'lint',
    run: (root) =>
      complaintsOf(root, 'biome', ['ci', '--colors=off', '--diagnostic-level=warn', '--max-diagnostics=50']),
  },
  { name: 'licences', run: checkLicences },
  { name: 'lock file', run: checkLockFile },
  { name: 'shell scripts', run: checkShellScripts },
];

/** Runs all checks, also after one has failed, and prints one line for each. True when all passed. */
export async function runChecks(root: string): Promise<boolean> {
  let passed = true;
  for (const check of CHECKS) {
    const complaint = await check.run(root);
    console.log(`${complaint === '' ? '✔' : '✖'} ${check.name}`);
    if (complaint !== '') {
      passed = false;
      console.log(complaint);
    }
  }
  return passed;
}

async function complaintsOf(root: string, tool: string, args: readonly string[]): Promise<string> {
  const command = join(root, 'node_modules', '.bin', tool);
  const result = await runCommand(command, args, { cwd: root, allowExit: [1, 2] });
  return result.exitCode === 0 ? '' : `${result.stdout}${result.stderr}`.trim();
}

async function checkLicences(root: string): Promise<string> {
  const wrong = (await readLicences(root)).filter((licence) => !licence.allowed);
  return wrong
    .map(({ name, licence }) => `${name}: «${licence}» is not in the list of allowed licences`)
    .join('\n');
}

/** A lock file that names a host ties every installation to it; integrity digests alone suffice. */
async function checkLockFile(root: string): Promise<string> {
  const lock = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8'));
  const complaints: string[] = [];
  for (const [path, entry] of Object.entries<{ resolved?: string; integrity?: string }>(lock.packages)) {
    if (path === '') continue;
    if (entry.resolved !== undefined) complaints.push(`${path} names where it was loaded from`);
    if (entry.integrity === undefined) complaints.push(`${path} has no integrity digest`);
  }
  return complaints.join('\n');
}

async function checkShellScripts(root: string): Promise<string> {
  const complaints: string[] = [];
  for (const path of [...globSync('{scripts,lab,demo,test}/**/*.sh', { cwd: root }), '.ci/run']) {
    const firstLine = (await readFile(join(root, path), 'utf8')).split('\n', 1)[0];
    const shell = firstLine?.endsWith('bash') ? 'bash' : 'sh';
    try {
      await runCommand(shell, ['-n', path], { cwd: root });
    } catch (error) {
      if (!isFailure(error, 'PROCESS_FAILED')) throw error;
      complaints.push(messageOf(error));
    }
  }
  return complaints.join('\n');
}

if (import.meta.main) {
  const root = dirname(import.meta.dirname);
  if (process.argv.includes('--print')) console.log(licenceTable(await readLicences(root)));
  process.exitCode = (await runChecks(root)) ? 0 : 1;
}
