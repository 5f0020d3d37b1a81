import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { TENURE_STATES } from '../src/recovery-point/index.ts';

/** `node scripts/failover-doc.ts [--write]`: the table of docs/failover.md from the code that the sites run. */
const DOCUMENT = join(dirname(import.meta.dirname), 'docs', 'failover.md');
const [BEGIN, END] = ['<!-- tenure -->', '<!-- /tenure -->'];

/** The document as it should be. */
export function failoverDocument(document: string): string {
  const begin = document.indexOf(BEGIN) + BEGIN.length;
  const end = document.indexOf(END);
  if (begin < BEGIN.length || end < begin) throw new Error(`docs/failover.md has no place for ${BEGIN}`);
  const rows = Object.entries(TENURE_STATES).map(
    ([state, { may, data, out }]) => `| **${state}** | ${may} | ${data} | ${out} |`,
  );
  const table = ['| the site | may | its disks | out of it |', '|---|---|---|---|', ...rows];
  return `${document.slice(0, begin)}\n${table.join('\n')}\n${document.slice(end)}`;
}

if (import.meta.main) {
  const present = await readFile(DOCUMENT, 'utf8');
  const wanted = failoverDocument(present);
  if (process.argv.includes('--write')) {
    await writeFile(DOCUMENT, wanted);
  } else if (present !== wanted) {
    console.error('docs/failover.md is out of date: run `npm run docs`.');
    process.exitCode = 1;
  }
}
