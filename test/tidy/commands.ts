import type { Command } from 'commander';
import type { Document } from './documents.ts';
import type { Violation } from './sources.ts';

/** As people are told to type them: in backticks, and in the blocks of documents at the beginning of a line. */
const QUOTED = /`warmsite ([^`]+)`/g;
const TYPED = /^(?:[$#] |sudo )*warmsite (.+)$/gm;
/** What the shell takes for itself, and what follows is no part of the command any more. */
const END = /^(?:[|>;&#\\].*|&&|…)$/;
/** What is signed begins as commands do. */
const SIGNED = /^[a-z ]+ v?1\b/;
const COMMAND = /^[a-z][a-z-]*$/;

/** Every command and option that a document, a remedy or a warning names is there. */
export function checkCommands(documents: readonly Document[], program: Command): Violation[] {
  return documents
    .filter(({ path }) => path.endsWith('.md') || path.startsWith('src/'))
    .flatMap(({ path, text }) => {
      const typed = path.endsWith('.md') ? [...text.matchAll(TYPED)] : [];
      return [...text.matchAll(QUOTED), ...typed].flatMap(({ 1: line = '', index }) => {
        const where = `${path}:${text.slice(0, index).split('\n').length}`;
        return wrongIn(line, program).map((what) => ({ where, what: `${what}: warmsite ${line}` }));
      });
    });
}

function wrongIn(line: string, program: Command): string[] {
  if (SIGNED.test(line)) return [];
  // What is quoted is of another program, or a value; and where the site is comes before the command.
  const words = line
    .replace(/'[^']*'|"[^"]*"/g, 'VALUE')
    .replace(/^--data \S+ /, '')
    .split(/\s+/);
  const end = words.findIndex((word) => END.test(word));
  return alternatives(end < 0 ? words : words.slice(0, end)).flatMap((way) => wrongWay(way, program));
}

/** `plan check|diff FILE` is two commands. */
function alternatives(words: readonly string[]): string[][] {
  return words.reduce<string[][]>(
    (ways, word) => {
      const choices = word.replace(/^[[(]+|[\])]+$/g, '').split('|');
      return ways.flatMap((way) => choices.map((choice) => [...way, choice]));
    },
    [[]],
  );
}

function wrongWay(words: readonly string[], program: Command): string[] {
  let command = program;
  let isNamed = false;
  const wrong: string[] = [];
  for (const word of words) {
    if (word.startsWith('--')) {
      const name = /^--[a-z-]*[a-z]/.exec(word)?.[0];
      const known = [command, program].flatMap(({ options }) => options.map(({ long }) => long));
      if (name && name !== '--help' && !known.includes(name)) wrong.push(`no option ${name}`);
      continue;
    }
    const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
    if (next && !isNamed) command = next;
    else {
      const isGroup = command.commands.length > 0 && !hasDefault(command);
      if (!isNamed && isGroup && COMMAND.test(word)) wrong.push(`no command ${word}`);
      isNamed = true;
    }
  }
  return wrong;
}

/** Some command of the group is meant where none is named; commander tells that in its help alone. */
function hasDefault(group: Command): boolean {
  return Reflect.get(group, '_defaultCommandName') != null;
}
