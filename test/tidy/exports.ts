import ts from 'typescript';
import {
  folderOf,
  type Mention,
  mentionsOf,
  resolveMention,
  type Source,
  type Violation,
  violationAt,
  walk,
} from './sources.ts';

const DOOR_COMMENT_LINES_MIN = 10;

/** Every folder of src has a door that opens with a comment on what is behind it. */
export function checkDoors(sources: readonly Source[]): Violation[] {
  const folders = new Set(sources.flatMap((source) => folderOf(source.path) ?? []));
  folders.delete('lib');
  const violations: Violation[] = [];
  for (const folder of folders) {
    const where = `src/${folder}/index.ts`;
    const door = sources.find((source) => source.path === where);
    if (door === undefined) {
      violations.push({ where, what: 'the folder has no index.ts' });
      continue;
    }
    const lines = openingCommentLines(door.text);
    if (lines >= DOOR_COMMENT_LINES_MIN) continue;
    violations.push({
      where,
      what: `opens with ${lines} lines of comment; at least ${DOOR_COMMENT_LINES_MIN}`,
    });
  }
  return violations;
}

function openingCommentLines(text: string): number {
  const ranges = ts.getLeadingCommentRanges(text, 0) ?? [];
  return ranges.reduce((sum, { pos, end }) => sum + text.slice(pos, end).split('\n').length, 0);
}

/** A name that a file of src declares and exports. */
interface Declared {
  readonly source: Source;
  readonly node: ts.Node;
  readonly name: string;
  /** A type may be exported because a signature shows it, without anybody naming it. */
  readonly isType: boolean;
}

/** Exports that nobody imports, neither src nor the tests and programs around it; and files that nobody enters. */
export function checkDeadExports(sources: readonly Source[]): Violation[] {
  const files = new Map(sources.map((source) => [source.path, source]));
  const used = usedNames(sources, files);
  const entered = new Set(
    sources.flatMap((source) =>
      mentionsOf(source).map(({ specifier }) => resolveMention(source.path, specifier)),
    ),
  );
  const violations: Violation[] = [];
  for (const source of sources) {
    if (folderOf(source.path) === undefined || isEntry(source.path)) continue;
    if (!entered.has(source.path)) violations.push({ where: source.path, what: 'no file imports this file' });
    for (const declared of declaredExports(source)) {
      if (used.has(keyOf(source.path, declared.name)) || isUsedAtHome(declared)) continue;
      violations.push(
        violationAt(source, declared.node, `${declared.name} is exported and nobody imports it`),
      );
    }
  }
  return violations;
}

/** main.ts is started, not imported; an index.ts is a door even while nobody has come in yet. */
function isEntry(path: string): boolean {
  return path.endsWith('/main.ts') || path.endsWith('/index.ts');
}

const keyOf = (path: string, name: string) => `${path}#${name}`;

/** Follows every import through re-exports to the file that declares the name. */
function usedNames(sources: readonly Source[], files: ReadonlyMap<string, Source>): Set<string> {
  const used = new Set<string>();
  const use = (path: string, name: string | undefined): void => {
    const source = files.get(path);
    const key = keyOf(path, name ?? '*');
    if (source === undefined || used.has(key)) return;
    used.add(key);
    if (name === undefined)
      for (const declared of declaredExports(source)) used.add(keyOf(path, declared.name));
    for (const mention of mentionsOf(source).filter(isReExport)) {
      const target = resolveMention(path, mention.specifier);
      if (target === undefined) continue;
      if (mention.names === undefined) use(target, name);
      mention.names?.forEach((original, index) => {
        if (name === undefined || mention.exportedAs?.[index] === name) use(target, original);
      });
    }
  };
  for (const source of sources) {
    for (const mention of mentionsOf(source)) {
      const target = resolveMention(source.path, mention.specifier);
      if (target === undefined || isReExport(mention)) continue;
      if (mention.names === undefined) use(target, undefined);
      for (const name of mention.names ?? []) use(target, name);
    }
  }
  return used;
}

function isReExport(mention: Mention): boolean {
  return ts.isExportDeclaration(mention.node);
}

function declaredExports(source: Source): Declared[] {
  const declared: Declared[] = [];
  for (const statement of source.tree.statements) {
    if (!ts.canHaveModifiers(statement)) continue;
    const exported = ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
    if (!exported) continue;
    const isType = ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement);
    for (const node of declaredNames(statement)) declared.push({ source, node, name: node.text, isType });
  }
  return declared;
}

function declaredNames(statement: ts.Statement): ts.Identifier[] {
  if (ts.isVariableStatement(statement)) {
    return statement.declarationList.declarations.flatMap(({ name }) =>
      ts.isIdentifier(name) ? [name] : [],
    );
  }
  const isNamedDeclaration =
    ts.isFunctionDeclaration(statement) ||
    ts.isClassDeclaration(statement) ||
    ts.isInterfaceDeclaration(statement) ||
    ts.isTypeAliasDeclaration(statement);
  return isNamedDeclaration && statement.name !== undefined ? [statement.name] : [];
}

/** A type that its own file mentions again, or a catalogue of errors, which docs/errors.md is made from. */
function isUsedAtHome({ source, node, name, isType }: Declared): boolean {
  if (source.path.endsWith('/errors.ts') && name.endsWith('_ERRORS')) return true;
  if (!isType) return false;
  let mentioned = false;
  walk(source.tree, (other) => {
    if (ts.isIdentifier(other) && other.text === name && other !== node) mentioned = true;
  });
  return mentioned;
}
