import {
  ADOPT_STEPS,
  BRANCH_PHASES,
  CEDE_STEPS,
  type ProcedureStep,
  recoveryOf,
  TAKE_STEPS,
  TEST_STEPS,
  TURN_STEPS,
  UNDO_STEPS,
  UNPLANNED_STEPS,
} from '../src/failover/index.ts';
import type { StateTable } from '../src/lib/state-table.ts';
import { STEP_STATES } from '../src/plan/index.ts';
import { DRILL_OUTCOMES, TENURE_STATES, VOTE_STATES } from '../src/recovery-point/index.ts';

/** docs/failover.md as it should be: its tables are written from those that the code and its tests go by. */
export function failoverDocument(document: string): string {
  const tables: Readonly<Record<string, readonly string[]>> = {
    tenure: states('the site', TENURE_STATES, { may: (state) => TENURE_STATES[state].may }),
    votes: states('a lender', VOTE_STATES),
    'test-steps': procedure(TEST_STEPS),
    'cede-steps': procedure(Object.values(CEDE_STEPS)),
    'take-steps': procedure(TAKE_STEPS),
    'unplanned-steps': procedure(UNPLANNED_STEPS),
    'undo-steps': procedure(UNDO_STEPS),
    'adopt-steps': procedure(ADOPT_STEPS),
    'turn-steps': procedure(TURN_STEPS),
    phases: states('a branch is', BRANCH_PHASES),
    recovery: recoveries(),
    'plan-steps': states('a machine is', STEP_STATES),
    drills: [
      ...head('a drill', 'what is known of the point', 'it is drilled again'),
      ...Object.entries(DRILL_OUTCOMES).map(([outcome, { data, again }]) => row(bold(outcome), data, again)),
    ],
  };
  return Object.entries(tables).reduce((text, [name, table]) => placed(text, name, table), document);
}

function placed(document: string, name: string, table: readonly string[]): string {
  const [first, last] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const begin = document.indexOf(first) + first.length;
  const end = document.indexOf(last);
  if (begin < first.length || end < begin) throw new Error(`docs/failover.md has no place for ${first}`);
  return `${document.slice(0, begin)}\n${table.join('\n')}\n${document.slice(end)}`;
}

function states<S extends string>(
  title: string,
  table: StateTable<S, string>,
  more: Readonly<Record<string, (state: S) => string>> = {},
): string[] {
  const names = Object.keys(table) as S[];
  const rows = names.map((state) => {
    const { data, next } = table[state];
    const ways = next.map(({ by, to, when }) => `*${by}* → ${to}: ${when}`);
    return row(bold(state), ...Object.values(more).map((told) => told(state)), data, ways.join('; '));
  });
  return [...head(title, ...Object.keys(more), 'what that promises about data', 'ways out of it'), ...rows];
}

function procedure(steps: readonly (ProcedureStep & { readonly name?: string })[]): string[] {
  const rows = steps.map(({ name, what, durable, stopped }) =>
    row(name ? `${bold(name)}: ${what}` : what, durable, stopped),
  );
  return [...head('step', 'durable then', 'if everything stops here'), ...rows];
}

/** What a site that starts again does with a branch: asked of the function that it asks itself. */
function recoveries(): string[] {
  const kinds = {
    'a test': { purpose: 'test', keep: false, hasRun: false },
    'a test with `--keep`': { purpose: 'test', keep: true, hasRun: false },
    'a failover': { purpose: 'failover', keep: true, hasRun: false },
    'booted again': { purpose: 'failover', keep: true, hasRun: true },
    'a preparation': { purpose: 'prepared', keep: true, hasRun: false },
  } as const;
  const said = { attach: 'goes on', 'keep-files': 'stopped, kept', remove: 'removed' } as const;
  const phases = Object.keys(BRANCH_PHASES).filter((phase) => phase !== 'none') as Exclude<
    keyof typeof BRANCH_PHASES,
    'none'
  >[];
  const rows = phases.map((phase) => {
    const cells = Object.values(kinds).map((kind) => {
      // Only a preparation is ever prepared, and it is never kept running.
      const isPrepared = kind.purpose === 'prepared';
      const canBe = isPrepared ? !['probed', 'failed', 'stopped'].includes(phase) : phase !== 'prepared';
      if (!canBe) return '–';
      const [running, ended] = [true, false].map((is) => said[recoveryOf({ ...kind, phase, running: is })]);
      return running === ended ? running! : `${running}; if its machine has ended: ${ended}`;
    });
    return row(bold(phase), ...cells);
  });
  return [...head('found as', ...Object.keys(kinds)), ...rows];
}

function head(...cells: readonly string[]): string[] {
  return [row(...cells), `|${cells.map(() => '---|').join('')}`];
}

function row(...cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}

function bold(text: string): string {
  return `**${text}**`;
}
