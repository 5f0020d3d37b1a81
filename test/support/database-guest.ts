import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Assertion, CopyType, GuestProgram } from '../../src/recovery-point/index.ts';

/** Where a database server has a root of its own in the lab guest: what a recipe runs is run in there. */
export const SERVER_ROOT = '/db';

/** Makes the root of the disk `/dev/vdc`, with `owned` in it given to the server's user. */
export function mountScript(owned: readonly string[]): string {
  return `mkdir -p ${SERVER_ROOT}
mount -t ext4 /dev/vdc ${SERVER_ROOT} && mount --bind /dev ${SERVER_ROOT}/dev && mount -t proc proc ${SERVER_ROOT}/proc || exit 1
chown -R 65534:65534 ${owned.map((path) => `${SERVER_ROOT}/${path}`).join(' ')}`;
}

/** An assertion that is a shell script in the lab guest itself. */
export function shell(name: string, script: string): Assertion {
  return { name, command: '/bin/sh', arguments: ['-c', script], limitMs: 200_000 };
}

/** The recipe of recipes/NAME.json as a type of the same name. `start` comes first: a guest of a real site starts its server by itself. */
export async function recipeInTree(
  name: string,
  start: string,
  own: readonly Assertion[],
): Promise<CopyType> {
  const path = join(import.meta.dirname, '..', '..', 'recipes', `${name}.json`);
  const recipe = JSON.parse(await readFile(path, 'utf8')) as Omit<CopyType, 'name'>;
  const hooks = Object.entries(recipe.hooks!).map(([hook, program]) => [hook, inTree(program)]);
  return {
    ...{ name, aim: recipe.aim, hooks: Object.fromEntries(hooks) },
    assertions: [
      shell('started', `(${start}) >/dev/null 2>&1 </dev/null`),
      ...recipe.assertions!.map(inTree),
      ...own,
    ],
  };
}

function inTree<P extends GuestProgram>(program: P): P {
  return {
    ...program,
    command: '/bin/chroot',
    arguments: [SERVER_ROOT, program.command, ...program.arguments],
  };
}
