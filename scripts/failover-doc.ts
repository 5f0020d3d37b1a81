import { TENURE_STATES } from '../src/recovery-point/index.ts';

const [BEGIN, END] = ['<!-- tenure -->', '<!-- /tenure -->'];

/** docs/failover.md as it should be: its table is written from the code that the sites run. */
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
