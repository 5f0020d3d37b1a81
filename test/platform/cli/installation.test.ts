/** The first steps of the manual, in a clone that has been installed nowhere. */
import assert from 'node:assert/strict';
import { cp, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { runCommand } from '../../../src/lib/processes.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');

test('a global installation runs; without the dependencies of its clone it says how to get them', async (t) => {
  const directory = await temporaryDirectory(t);
  const clone = join(directory, 'clone');
  for (const name of ['bin', 'src', 'package.json', '.npmrc'])
    await cp(join(ROOT, name), join(clone, name), { recursive: true });
  const prefix = join(directory, 'prefix');
  await runCommand('npm', ['install', '--global', '--offline', '--prefix', prefix, '.'], { cwd: clone });
  const warmsite = () =>
    runCommand(process.execPath, [join(prefix, 'bin', 'warmsite'), '--version'], { allowExit: [8] });

  const lacking = await warmsite();
  assert.equal(lacking.exitCode, 8);
  assert.match(
    lacking.stderr,
    /^warmsite: Its dependencies are not installed in (.+)\.\nRun `npm ci` there\.\n$/,
  );
  await symlink(join(ROOT, 'node_modules'), join(clone, 'node_modules'));
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  const installed = await warmsite();
  assert.deepEqual([installed.exitCode, installed.stdout.trim()], [0, version]);
});
