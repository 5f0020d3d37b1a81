import { globSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type CodeEntry, type ErrorCatalogue, KIND_TABLE } from '../src/lib/errors.ts';

const ROOT = dirname(import.meta.dirname);

export interface FolderCatalogue {
  readonly folder: string;
  /** Name of the exported constant, such as QMP_ERRORS. */
  readonly name: string;
  readonly catalogue: ErrorCatalogue;
}

/** All catalogues: the exports of src/<folder>/errors.ts whose name ends in `_ERRORS`, sorted by folder. */
export async function readCatalogues(): Promise<FolderCatalogue[]> {
  const catalogues: FolderCatalogue[] = [];
  for (const path of globSync('src/*/errors.ts', { cwd: ROOT }).sort()) {
    const exports: Record<string, unknown> = await import(join(ROOT, path));
    for (const [name, value] of Object.entries(exports)) {
      if (!name.endsWith('_ERRORS')) continue;
      // The constants are declared `satisfies ErrorCatalogue`; the compiler has looked already.
      catalogues.push({ folder: path.split('/')[1]!, name, catalogue: value as ErrorCatalogue });
    }
  }
  return catalogues;
}

/** docs/errors.md from the catalogues of all folders. */
export function errorsDocument(catalogues: readonly FolderCatalogue[]): string {
  const lines = [
    '# Errors',
    '',
    'Every failure carries a code, and every code says here what a person should do next. The kind of a failure',
    'fixes the HTTP status and the exit status of the command line. «Retry» is what a program may do about it:',
    'nothing, the same again later, or the same over a new connection.',
    '',
    'Written from the catalogues by `npm run docs`; a test keeps them equal.',
  ];
  for (const { folder, catalogue } of catalogues) {
    lines.push('', `## ${folder}`, '');
    lines.push('| code | kind | HTTP | exit | retry | remedy |', '|---|---|---|---|---|---|');
    for (const code of Object.keys(catalogue).sort()) lines.push(row(code, catalogue[code]!));
  }
  return `${lines.join('\n')}\n`;
}

function row(code: string, { kind, retry, remedy }: CodeEntry): string {
  const { httpStatus, exitCode } = KIND_TABLE[kind];
  return `| ${code} | ${kind} | ${httpStatus} | ${exitCode} | ${retry} | ${remedy.replaceAll('|', '\\|')} |`;
}
