import { globSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import ts from 'typescript';

/** One TypeScript file, parsed. Paths are relative to the repository and use slashes. */
export interface Source {
  readonly path: string;
  readonly text: string;
  readonly tree: ts.SourceFile;
}

/** A broken rule: `where` is `path:line`. */
export interface Violation {
  readonly where: string;
  readonly what: string;
}

export const ROOT = dirname(dirname(import.meta.dirname));

/** Every TypeScript file of the project; `.cache` and `node_modules` are no part of it. */
export function readSources(): Source[] {
  const pattern = '{src,test,scripts,bench,demo,lab}/**/*.ts';
  return globSync(pattern, { cwd: ROOT })
    .sort()
    .map((path) => parseSource(path, readFileSync(join(ROOT, path), 'utf8')));
}

export function parseSource(path: string, text: string): Source {
  const setParentNodes = true;
  return { path, text, tree: ts.createSourceFile(path, text, ts.ScriptTarget.Latest, setParentNodes) };
}

export function violationAt(source: Source, node: ts.Node, what: string): Violation {
  const { line } = source.tree.getLineAndCharacterOfPosition(node.getStart(source.tree));
  return { where: `${source.path}:${line + 1}`, what };
}

/** Calls `visit` for every node below `node`, itself included, in the order of the text. */
export function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node);
  ts.forEachChild(node, (child) => walk(child, visit));
}

/** The domain folder of a file under src (`qmp` of `src/qmp/client.ts`); undefined elsewhere. */
export function folderOf(path: string): string | undefined {
  const [top, folder, ...rest] = path.split('/');
  return top === 'src' && rest.length > 0 ? folder : undefined;
}

/** A mention of another module: an import, a re-export, `import('…')` or an import type. */
export interface Mention {
  readonly node: ts.Node;
  readonly specifier: string;
  /** The names taken from it, as the other module calls them; undefined when it is taken as a whole. */
  readonly names: readonly string[] | undefined;
  /** For a re-export: the name under which each of `names` is passed on. */
  readonly exportedAs?: readonly string[];
}

export function mentionsOf(source: Source): Mention[] {
  const mentions: Mention[] = [];
  walk(source.tree, (node) => {
    if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier)) {
      mentions.push({ node, specifier: node.moduleSpecifier.text, names: importedNames(node.importClause) });
    } else if (
      ts.isExportDeclaration(node) &&
      node.moduleSpecifier &&
      ts.isStringLiteral(node.moduleSpecifier)
    ) {
      mentions.push({ node, specifier: node.moduleSpecifier.text, ...reExportedNames(node) });
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments;
      if (argument && ts.isStringLiteralLike(argument)) {
        mentions.push({ node, specifier: argument.text, names: undefined });
      }
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      const { literal } = node.argument;
      if (ts.isStringLiteral(literal)) mentions.push({ node, specifier: literal.text, names: undefined });
    }
  });
  return mentions;
}

function importedNames(clause: ts.ImportClause | undefined): string[] | undefined {
  if (clause === undefined) return [];
  const names = clause.name ? ['default'] : [];
  const { namedBindings } = clause;
  if (namedBindings === undefined) return names;
  if (ts.isNamespaceImport(namedBindings)) return undefined;
  return [...names, ...namedBindings.elements.map((element) => (element.propertyName ?? element.name).text)];
}

function reExportedNames(node: ts.ExportDeclaration): Pick<Mention, 'names' | 'exportedAs'> {
  const { exportClause } = node;
  if (exportClause === undefined || ts.isNamespaceExport(exportClause)) return { names: undefined };
  return {
    names: exportClause.elements.map((element) => (element.propertyName ?? element.name).text),
    exportedAs: exportClause.elements.map((element) => element.name.text),
  };
}

/** The file that a relative specifier means, as a path of the repository; undefined for packages and `node:`. */
export function resolveMention(from: string, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined;
  return posix.normalize(posix.join(posix.dirname(from), specifier));
}
