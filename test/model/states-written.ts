import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Explored } from './explorations.ts';

/** The table of explorations in docs/failover.md, which `npm run model` writes. */
export const FAILOVER_DOCUMENT = join(dirname(import.meta.dirname), '..', 'docs', 'failover.md');
const [BEGIN, END] = ['<!-- explored -->', '<!-- /explored -->'];

/** What is counted, where its name says less to people. */
const NAMES: Readonly<Record<string, string>> = {
  doubled: 'doubled messages',
  seeks: 'questions for votes',
  lostAnswers: 'lost answers',
};

/** How many states docs/failover.md says that an exploration comes to, at normal size. */
export function statesWritten(name: string): number | undefined {
  const row = readFileSync(FAILOVER_DOCUMENT, 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`| ${name} | `));
  const cell = row?.split(' | ')[2];
  return cell === undefined ? undefined : Number(cell.replaceAll(/\D/g, ''));
}

/** The document with what explorations have come to. */
export function withStates(document: string, explorations: ReadonlyMap<string, Explored>): string {
  const begin = document.indexOf(BEGIN) + BEGIN.length;
  const end = document.indexOf(END);
  if (begin < BEGIN.length || end < begin) throw new Error(`docs/failover.md has no place for ${BEGIN}`);
  const rows = [...explorations].map(([name, { budget, states, steps }]) => {
    const depth = Object.entries(budget).filter(([, times]) => times > 0);
    const said = depth.map(([what, times]) => `${NAMES[what] ?? what} ${times}`).join(', ');
    return `| ${name} | ${said} | ${grouped(states)} | ${grouped(steps)} |`;
  });
  const table = ['| exploration | depth | states | steps |', '|---|---|---|---|', ...rows];
  return `${document.slice(0, begin)}\n${table.join('\n')}\n${document.slice(end)}`;
}

function grouped(count: number): string {
  return count.toLocaleString('en-US');
}
