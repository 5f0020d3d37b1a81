import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { RunDirectory } from '../scripts/run-directory.ts';
import { messageOf } from '../src/lib/errors.ts';
import { printHead } from './support/head.ts';

/**
 * `npm run bench -- [name…]`: runs the named benches; all of them with `all` or without a name. A bench is a file
 * beside this one that answers one question; it exports `run()`, which prints its own table, and measures what it
 * compares with in the same run. A target that is missed is said, and is no failure of the bench. What a bench has started ends
 * with it, also when a signal ends it.
 */
async function main(wanted: readonly string[]): Promise<number> {
  const benches = import.meta.dirname;
  const known = (await readdir(benches, { withFileTypes: true }))
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && entry.name !== 'main.ts')
    .map((entry) => entry.name.slice(0, -'.ts'.length))
    .sort();
  const names = wanted.length === 0 || wanted.includes('all') ? known : wanted;
  const unknown = wanted.filter((name) => name !== 'all' && !known.includes(name));
  if (unknown.length > 0) {
    console.error(`No bench is called ${unknown.join(', ')}. There are: ${known.join(', ')}`);
    return 2;
  }
  await printHead();
  const directory = RunDirectory.make();
  process.env.TMPDIR = directory.path;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void directory.clear(0).finally(() => process.exit(1)));
  }
  let failed = 0;
  for (const name of names) {
    console.log(`\n## ${name}`);
    try {
      const bench: { run?: unknown } = await import(join(benches, `${name}.ts`));
      if (typeof bench.run !== 'function') throw new Error(`bench/${name}.ts exports no function run()`);
      await bench.run();
    } catch (error) {
      failed += 1;
      console.error(`${name} failed: ${messageOf(error)}`);
    }
  }
  for (const left of await directory.clear()) {
    failed += 1;
    console.error(`left running, and ended now: ${left}`);
  }
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
