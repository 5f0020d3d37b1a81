import { printable } from '../lib/printable.ts';

/** Markup that has been made here; everything else is text and is escaped. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Part = Markup | string | number | undefined | readonly Markup[];

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text as a page shows it, in content and in quoted attributes alike: whoever has written it, it stays text. */
function escaped(text: string): string {
  return printable(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** Puts markup together: all that is put in is escaped unless it has been made by this very function. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  const text = strings.reduce((before, string, index) => before + shown(parts[index - 1]) + string);
  return new Markup(text);
}

function shown(part: Part): string {
  if (part === undefined) return '';
  if (part instanceof Markup) return part.text;
  if (typeof part === 'object') return part.map(({ text }) => text).join('');
  return escaped(String(part));
}

export const NOTHING = new Markup('');

/** `2030-01-31 17:04:05.123 UTC`: the same wherever it is read. */
export function utc(wallMs: number): string {
  return `${new Date(wallMs).toISOString().replace('T', ' ').replace('Z', '')} UTC`;
}
