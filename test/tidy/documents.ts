import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemCodeOf } from '../../src/lib/errors.ts';
import { ROOT, type Violation } from './sources.ts';

export interface Document {
  readonly path: string;
  readonly text: string;
}

/** Every text file that git tracks. */
export function readTracked(): Document[] {
  const paths = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' }).split('\0');
  return paths
    .filter((path) => path !== '')
    .flatMap((path) => {
      const text = readText(path);
      return text === undefined || text.includes('\0') ? [] : [{ path, text }];
    });
}

/** Undefined for a file that git still lists but that is gone from the work tree. */
function readText(path: string): string | undefined {
  try {
    return readFileSync(join(ROOT, path), 'utf8');
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** A document has one title, and it comes first. */
export function checkTitles(documents: readonly Document[]): Violation[] {
  return documents
    .filter(({ path }) => path.endsWith('.md'))
    .flatMap(({ path, text }) => {
      const prose = text.replace(/^(```|~~~).*?^\1/gms, '');
      const titles = prose.split('\n').filter((line) => /^# /.test(line)).length;
      if (titles !== 1) return [{ where: path, what: `${titles} titles; a document has one` }];
      return text.startsWith('# ') ? [] : [{ where: path, what: 'the title is not the first line' }];
    });
}

/** Directories that exist on somebody's machine only. */
const MACHINE_PATH = /(?<![\w.~$})>\]/-])\/(?:work|home|Users)\/[\w.-]+/;
const REGISTRY_HOST = /\bregistry\.[a-z]+\.(?:org|com|net)\b/;

export function checkMachineTraces(documents: readonly Document[]): Violation[] {
  return documents.flatMap(({ path, text }) =>
    text.split('\n').flatMap((line, index) => {
      const match = MACHINE_PATH.exec(line) ?? REGISTRY_HOST.exec(line);
      return match
        ? [{ where: `${path}:${index + 1}`, what: `${match[0]} names one machine or one host` }]
        : [];
    }),
  );
}
