import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCodeOf } from '../src/lib/errors.ts';

/** Licences that may be combined with Apache-2.0 without asking anybody. */
const ALLOWED: ReadonlySet<string> = new Set([
  '0BSD',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'CC0-1.0',
  'ISC',
  'MIT',
  'MIT-0',
  'Unlicense',
]);

export interface PackageLicence {
  readonly name: string;
  readonly version: string;
  /** SPDX expression as the package states it; empty when it states none. */
  readonly licence: string;
  readonly use: 'production' | 'development';
  readonly allowed: boolean;
}

/** The licences of every package that the lock file names, installed on this platform or not. */
export async function readLicences(root: string): Promise<PackageLicence[]> {
  const lock = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8'));
  const licences: PackageLicence[] = [];
  for (const [path, entry] of Object.entries<LockEntry>(lock.packages)) {
    if (path === '') continue;
    // A package for another platform is not installed; then the lock file is the only witness.
    const stated = await readPackageJson(join(root, path, 'package.json'));
    const licence = spdxOf(stated === undefined ? entry.license : (stated.license ?? stated.licenses));
    licences.push({
      name: path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length),
      version: entry.version,
      licence,
      use: entry.dev ? 'development' : 'production',
      allowed: isAllowed(licence),
    });
  }
  return licences.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

interface LockEntry {
  readonly version: string;
  readonly license?: unknown;
  readonly dev?: boolean;
}

async function readPackageJson(path: string): Promise<{ license?: unknown; licenses?: unknown } | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Old packages write `{ type }` or a list of such; both are read as an SPDX expression. */
function spdxOf(stated: unknown): string {
  if (typeof stated === 'string') return stated;
  if (Array.isArray(stated)) return stated.map(spdxOf).join(' OR ');
  if (typeof stated === 'object' && stated !== null && 'type' in stated) return spdxOf(stated.type);
  return '';
}

/**
 * True when the expression can be satisfied by allowed licences alone: one side of an OR, both of an AND.
 * Anything that is not a plain expression (WITH, LicenseRef-…, «SEE LICENSE IN») is not allowed.
 */
export function isAllowed(expression: string): boolean {
  const tokens = expression.match(/[()]|[^\s()]+/g) ?? [];
  let position = 0;

  function either(): boolean {
    let allowed = both();
    while (tokens[position] === 'OR') {
      position += 1;
      allowed = both() || allowed;
    }
    return allowed;
  }
  function both(): boolean {
    let allowed = one();
    while (tokens[position] === 'AND') {
      position += 1;
      allowed = one() && allowed;
    }
    return allowed;
  }
  function one(): boolean {
    const token = tokens[position];
    position += 1;
    if (token !== '(') return token !== undefined && ALLOWED.has(token);
    const allowed = either();
    const closed = tokens[position] === ')';
    position += 1;
    return allowed && closed;
  }

  return either() && position === tokens.length;
}

export function licenceTable(licences: readonly PackageLicence[]): string {
  const rows = licences.map(
    ({ name, version, licence, use }) => `| ${name} | ${version} | ${licence} | ${use} |`,
  );
  return ['| package | version | licence | use |', '|---|---|---|---|', ...rows].join('\n');
}
