import Type from 'typebox';
import { Value } from 'typebox/value';
import { CopyTypeShape } from '../api/index.ts';
import type { FileSystem } from '../lib/files.ts';
import { cliFailure } from './errors.ts';
import { readJsonFile } from './json-file.ts';
import { invalid, parseName } from './values.ts';

/** How a copy type is described on the command line; docs/consistency.md shows all forms. */
export interface CopyTypeOptions {
  readonly aim?: CopyTypeShape['aim'];
  readonly description?: string;
  readonly before?: readonly string[];
  readonly after?: readonly string[];
  readonly onFailure?: readonly string[];
  readonly assert?: readonly (readonly [name: string, program: readonly string[]])[];
  readonly limit: number;
}

const FORM = 'a program of the guest and its arguments, with quotes around those that hold spaces';

/** `/bin/sh -c 'sync; echo done'`: words, parted by spaces, that may be put in single or double quotes. Nothing is expanded. */
export function parseProgram(text: string): readonly string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (const character of text) {
    if (quote !== undefined) {
      if (character === quote) quote = undefined;
      else word += character;
    } else if (character === "'" || character === '"') {
      quote = character;
      word ??= '';
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + character;
  }
  if (word !== undefined) words.push(word);
  if (quote !== undefined || !words[0]) throw invalid(text, FORM);
  return words;
}

/** `rows=/usr/local/bin/count-rows`. */
export function parseAssertion(text: string): readonly [string, readonly string[]] {
  const at = text.indexOf('=');
  if (at < 0) throw invalid(text, `a name, «=» and ${FORM}`);
  return [parseName(text.slice(0, at)), parseProgram(text.slice(at + 1))];
}

export function copyTypeFromOptions(name: string, o: CopyTypeOptions): CopyTypeShape {
  const { before, after, onFailure, assert = [] } = o;
  const program = ([command, ...rest]: readonly string[]) => ({
    command: command!,
    arguments: rest,
    limitMs: o.limit,
  });
  const hooks = {
    ...(before ? { before: program(before) } : {}),
    ...(after ? { after: program(after) } : {}),
    ...(onFailure ? { onFailure: program(onFailure) } : {}),
  };
  return {
    name: parseName(name),
    aim: o.aim ?? 'application',
    ...(o.description === undefined ? {} : { description: o.description }),
    ...(Object.keys(hooks).length > 0 ? { hooks } : {}),
    ...(assert.length > 0
      ? { assertions: assert.map(([name, words]) => ({ name, ...program(words) })) }
      : {}),
  };
}

const Described = Type.Object(
  { ...CopyTypeShape.properties, name: Type.Optional(CopyTypeShape.properties.name) },
  { additionalProperties: false },
);

/** All of a type but its name, from a JSON file. Throws CLI_FILE_INVALID. */
export async function copyTypeFromFile(
  files: FileSystem,
  path: string,
  name: string,
): Promise<CopyTypeShape> {
  const value = await readJsonFile(files, path);
  if (Value.Check(Described, value)) return { ...value, name: parseName(name) };
  const [first] = Value.Errors(Described, value);
  const why = first ? `${first.instancePath || 'it'} ${first.message}` : 'it has another form';
  throw cliFailure('CLI_FILE_INVALID', `${path} does not describe a copy type: ${why}`, {
    context: { path },
  });
}
