/** The hooks of the MariaDB recipe with a client of our own on the path: what they do when something goes wrong. */
import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCommand } from '../../../src/lib/processes.ts';
import type { CopyType } from '../../../src/recovery-point/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const RECIPE = join(import.meta.dirname, '..', '..', '..', 'recipes', 'mariadb.json');

/** The half minute of the recipe is over when somebody makes `over` or the test has ended; other waits are short. The client answers as the real one does. */
const PROGRAMS = (directory: string, answer: string): Record<string, string> => ({
  sleep: `if [ $1 = 30 ]; then until [ -e ${directory}/over ] || [ ! -e ${directory} ]; do /bin/sleep 0.02; done; else exec /bin/sleep 0.02; fi`,
  mariadb: `while read -r line; do
    echo "$line" >>${directory}/asked
    case $line in
      *CONCAT*) ${answer} ;;
      *END*) echo 'until the thaw' ;;
    esac
  done
  touch ${directory}/ended`,
});

async function hooks(t: TestContext, answer: string) {
  const directory = await temporaryDirectory(t);
  const [bin, run] = [join(directory, 'bin'), join(directory, 'run')];
  for (const path of [bin, run]) await mkdir(path);
  for (const [name, script] of Object.entries(PROGRAMS(directory, answer))) {
    await writeFile(join(bin, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(bin, name), 0o755);
  }
  const recipe = JSON.parse(await readFile(RECIPE, 'utf8')) as CopyType;
  const runs = async (hook: 'before' | 'after') => {
    const { command, arguments: args, input } = recipe.hooks![hook]!;
    const script = input!.replaceAll('/run/warmsite-mariadb', join(run, 'warmsite-mariadb'));
    const line = [`PATH=${bin}:${process.env.PATH}`, command, ...args];
    return runCommand('env', line, { input: script, allowExit: [0, 1] });
  };
  return {
    runs,
    asked: () => readFile(join(directory, 'asked'), 'utf8'),
    left: () => readdir(run),
    noThaw: async () => {
      await writeFile(join(directory, 'over'), '');
      while (!(await readdir(directory)).includes('ended'));
    },
  };
}

test('S0.6 the session that holds MariaDB back ends by itself when no thaw comes, and the hook after it says so', async (t) => {
  const { runs, asked, left, noThaw } = await hooks(t, 'echo held at GTID 0-1-5 LSN 7');
  const held = await runs('before');
  assert.deepEqual([held.exitCode, held.stdout], [0, 'held at GTID 0-1-5 LSN 7\n']);
  const stages = [...(await asked()).matchAll(/BACKUP STAGE (\w+)/g)].map((match) => match[1]);
  assert.deepEqual(stages, ['START', 'FLUSH', 'BLOCK_DDL', 'BLOCK_COMMIT']);
  await noThaw();
  const late = await runs('after');
  assert.equal(late.exitCode, 1);
  assert.match(late.stderr, /the locks on the server were lost before the thaw/);
  assert.deepEqual(await left(), []);
  assert.equal((await runs('after')).exitCode, 0, 'there is nothing to let go of');
});

test('S0.6 MariaDB is let go of at the thaw; a hook that is repeated begins anew', async (t) => {
  const { runs, asked, left } = await hooks(t, 'echo held at GTID 0-1-5 LSN 7');
  assert.equal((await runs('before')).exitCode, 0);
  assert.equal((await runs('before')).exitCode, 0);
  const { exitCode, stderr } = await runs('after');
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.match(await asked(), /BACKUP STAGE END/);
  assert.deepEqual(await left(), []);
});

test('S0.6 a server that cannot be held back is let go of at once, with its own words', async (t) => {
  const { runs, left } = await hooks(t, 'echo ERROR 1205: Lock wait timeout exceeded; exit 1');
  const { exitCode, stderr } = await runs('before');
  assert.equal(exitCode, 1);
  assert.match(
    stderr,
    /^ERROR 1205: Lock wait timeout exceeded\nthe commits of the server could not be held back$/m,
  );
  assert.deepEqual(await left(), []);
  assert.equal((await runs('after')).exitCode, 0);
});
