import { folderOf, mentionsOf, resolveMention, type Source, type Violation, violationAt } from './sources.ts';

/** Folder → folders that it may import from; in the order of the table, lowest first. */
export type ImportTable = ReadonlyMap<string, readonly string[]>;

/** Reads the table of ARCHITECTURE.md whose head is `| folder | holds | may import |`. */
export function parseImportTable(markdown: string): ImportTable {
  const lines = markdown.split('\n');
  const head = lines.findIndex((line) => /^\|\s*folder\s*\|\s*holds\s*\|\s*may import\s*\|$/.test(line));
  if (head === -1) throw new Error('ARCHITECTURE.md has no import table');
  const table = new Map<string, readonly string[]>();
  for (const line of lines.slice(head + 2)) {
    if (!line.startsWith('|')) break;
    const [folder, , allowed] = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    table.set(
      folder!,
      (allowed ?? '').split(/\s+/).filter((name) => name !== ''),
    );
  }
  return table;
}

/** The table itself: every folder of src has a row and the other way round, and rows name only rows above. */
export function checkTable(table: ImportTable, folders: readonly string[]): Violation[] {
  const violations: Violation[] = [];
  const where = 'ARCHITECTURE.md';
  for (const folder of folders) {
    if (!table.has(folder)) violations.push({ where, what: `src/${folder} has no row in the import table` });
  }
  const above = new Set<string>();
  for (const [folder, allowed] of table) {
    for (const name of allowed) {
      if (above.has(name)) continue;
      violations.push({ where, what: `${folder} may import ${name}, which is not in a row above it` });
    }
    above.add(folder);
  }
  return violations;
}

/** Imports that point sideways, upwards, out of src, or past the door of a folder. */
export function checkImports(sources: readonly Source[], table: ImportTable): Violation[] {
  return sources.flatMap((source) =>
    mentionsOf(source).flatMap(({ node, specifier }) => {
      const target = resolveMention(source.path, specifier);
      const what = target === undefined ? undefined : objection(source.path, target, table);
      return what === undefined ? [] : [violationAt(source, node, what)];
    }),
  );
}

/** Tests and benches look inside; everybody else comes in by the door. */
const LOOKS_INSIDE = /^(test|bench)\//;

function objection(from: string, to: string, table: ImportTable): string | undefined {
  const fromFolder = folderOf(from);
  const toFolder = folderOf(to);
  if (fromFolder !== undefined && toFolder === undefined) return `src imports ${to}, which is outside src`;
  if (toFolder === undefined || fromFolder === toFolder) return undefined;
  if (fromFolder !== undefined && !table.get(fromFolder)?.includes(toFolder)) {
    return `${fromFolder} may not import ${toFolder} (import table of ARCHITECTURE.md)`;
  }
  if (toFolder === 'lib' || LOOKS_INSIDE.test(from) || to === `src/${toFolder}/index.ts`) return undefined;
  return `${to} is entered past its index.ts`;
}

/**
 * The rooms of a folder (`control/drills`) point one way: those that point around in a ring are found by taking away, again and
 * again, the rooms that need no other one. The files beside the rooms put them together, and may be seen by all.
 */
export function checkRooms(sources: readonly Source[]): Violation[] {
  const needs = new Map<string, Set<string>>();
  for (const source of sources) {
    const from = roomOf(source.path);
    if (from === undefined) continue;
    const needed = needs.get(from) ?? new Set();
    needs.set(from, needed);
    for (const { specifier } of mentionsOf(source)) {
      const to = roomOf(resolveMention(source.path, specifier) ?? '');
      if (to !== undefined && to !== from && folderOf(to) === folderOf(from)) needed.add(to);
    }
  }
  for (;;) {
    const free = [...needs].filter(([, needed]) => ![...needed].some((room) => needs.has(room)));
    if (free.length === 0) break;
    for (const [room] of free) needs.delete(room);
  }
  return [...needs].map(([where, needed]) => {
    const ring = [...needed].filter((room) => needs.has(room)).join(', ');
    return { where, what: `needs ${ring}, and is needed there, perhaps by way of others` };
  });
}

/** `src/control/drills` of `src/control/drills/drills.ts`; undefined for a file beside the rooms. */
function roomOf(path: string): string | undefined {
  const parts = path.split('/');
  return parts[0] === 'src' && parts.length > 3 ? parts.slice(0, 3).join('/') : undefined;
}

const OUTSIDE_WORLD = new Set(
  'fs net tls http https http2 child_process dgram'.split(' ').map((name) => `node:${name}`),
);
/** Folders that open files, sockets and processes; all others are handed them through interfaces. */
const OPENS_THINGS = new Set(['lib', 'qmp', 'nbd', 'peer', 'hypervisor', 'failover', 'server', 'cli']);

export function checkOutsideWorld(sources: readonly Source[]): Violation[] {
  return sources.flatMap((source) => {
    const folder = folderOf(source.path);
    if (folder === undefined || OPENS_THINGS.has(folder)) return [];
    return mentionsOf(source)
      .filter(({ specifier }) => OUTSIDE_WORLD.has(specifier.split('/')[0]!))
      .map(({ node, specifier }) => violationAt(source, node, `src/${folder} may not use ${specifier}`));
  });
}
