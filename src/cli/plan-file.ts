import { extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parse } from 'yaml';
import type { PlanDocument } from '../api/index.ts';
import { messageOf } from '../lib/errors.ts';
import { type FileSystem, readSmallFile } from '../lib/files.ts';
import { cliFailure } from './errors.ts';

/** Loaded by those commands alone that read a plan: all others should answer at once. */
export const loadPlans = () => import('../plan/index.ts');

const BYTES_MAX = 1024 * 1024;

/**
 * The plan in a file that a person wrote: YAML (`.yaml`, `.yml`), JSON, or a module (`.ts`, `.mts`, `.mjs`, `.js`) whose default export is
 * the plan. A module is run, here and as whoever calls. Throws CLI_FILE_INVALID.
 */
export async function readPlan(files: FileSystem, path: string): Promise<PlanDocument> {
  const value = await valueIn(files, path);
  const { formFindingsOf } = await loadPlans();
  const [first] = formFindingsOf(value);
  if (first) throw cliFailure('CLI_FILE_INVALID', `${path}: ${first.message}`, { context: { path } });
  return value as PlanDocument;
}

async function valueIn(files: FileSystem, path: string): Promise<unknown> {
  const extension = extname(path);
  try {
    if (['.ts', '.mts', '.mjs', '.js'].includes(extension)) {
      const loaded = (await import(pathToFileURL(resolve(path)).href)) as { readonly default?: unknown };
      if (loaded.default !== undefined) return loaded.default;
      throw new Error('it has no default export');
    }
    const bytes = await readSmallFile(files, path, BYTES_MAX);
    if (!bytes) throw new Error('there is no such file');
    const text = bytes.toString('utf8');
    return extension === '.json' ? JSON.parse(text) : parse(text, { maxAliasCount: 100 });
  } catch (error) {
    throw cliFailure('CLI_FILE_INVALID', `${path} cannot be read as a plan: ${messageOf(error)}`, {
      context: { path },
      cause: error,
    });
  }
}
