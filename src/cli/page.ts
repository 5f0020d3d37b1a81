import { printable } from '../lib/printable.ts';

/** What a text is to the reader; colours follow from it where colours are wanted. */
export type Tone = 'plain' | 'strong' | 'faint' | 'good' | 'warning' | 'bad';

export type Cell = string | { readonly text: string; readonly tone: Tone };

export interface Column {
  readonly head: string;
  readonly align?: 'right';
}

const CODES: Readonly<Record<Exclude<Tone, 'plain'>, number>> = {
  strong: 1,
  faint: 2,
  good: 32,
  warning: 33,
  bad: 31,
};

/** A text for people, built line by line. Everything that is put in is made printable here. */
export class Page {
  readonly #colours: boolean;
  readonly #lines: string[] = [];

  constructor(colours: boolean) {
    this.#colours = colours;
  }

  line(...cells: readonly Cell[]): this {
    this.#lines.push(cells.map((cell) => this.#painted(cell)).join(''));
    return this;
  }

  /** A heading with an empty line before it, unless it is the first line. */
  title(text: string): this {
    if (this.#lines.length > 0) this.#lines.push('');
    return this.line({ text, tone: 'strong' });
  }

  /** Labels and values in two columns; pairs without a value are left out. */
  fields(pairs: readonly (readonly [label: string, value: Cell | undefined])[]): this {
    const shown = pairs.filter((pair): pair is readonly [string, Cell] => pair[1] !== undefined);
    const width = Math.max(0, ...shown.map(([label]) => label.length)) + 2;
    for (const [label, value] of shown) {
      this.line({ text: label.padEnd(width), tone: 'faint' }, value);
    }
    return this;
  }

  /** Columns as wide as their widest cell; a column without any value is left out. */
  table(columns: readonly Column[], rows: readonly (readonly (Cell | undefined)[])[]): this {
    const used = columns
      .map((column, index) => ({ ...column, index }))
      .filter(({ index }) => rows.some((row) => textOf(row[index]) !== ''));
    const widths = used.map(({ head, index }) =>
      Math.max(head.length, ...rows.map((row) => widthOf(printable(textOf(row[index]))))),
    );
    const print = (cells: readonly (Cell | undefined)[]) => {
      const parts = used.map(({ align }, position) => {
        const cell = cells[position] ?? '';
        const gap = ' '.repeat(widths[position]! - widthOf(printable(textOf(cell))));
        if (align === 'right') return gap + this.#painted(cell);
        return this.#painted(cell) + (position === used.length - 1 ? '' : gap);
      });
      this.#lines.push(parts.join('  ').trimEnd());
    };
    print(used.map(({ head }) => ({ text: head, tone: 'faint' })));
    for (const row of rows) print(used.map(({ index }) => row[index]));
    return this;
  }

  #painted(cell: Cell): string {
    const text = printable(textOf(cell));
    const tone = typeof cell === 'string' ? 'plain' : cell.tone;
    return this.#colours && tone !== 'plain' && text !== '' ? `\x1b[${CODES[tone]}m${text}\x1b[0m` : text;
  }

  toString(): string {
    return this.#lines.map((line) => `${line}\n`).join('');
  }
}

function textOf(cell: Cell | undefined): string {
  return typeof cell === 'object' ? cell.text : (cell ?? '');
}

/** Characters, not UTF-16 units. Good enough for the names that machines have. */
function widthOf(text: string): number {
  return [...text].length;
}
