import ts from 'typescript';
import { folderOf, mentionsOf, type Source, type Violation, violationAt, walk } from './sources.ts';

/** The only files that may ask for the time or for chance; everybody else is given a Clock or a Random. */
const CLOCK_AND_CHANCE = new Set(['src/lib/clock.ts', 'src/lib/random.ts']);

const BANNED_MEMBERS = new Set([
  'Date.now',
  'performance.now',
  'process.hrtime',
  'Math.random',
  'AbortSignal.timeout',
  'crypto.getRandomValues',
]);
const BANNED_NAMES = new Set([
  'setTimeout',
  'setInterval',
  'randomBytes',
  'randomUUID',
  'randomInt',
  'randomFillSync',
]);

/** Wall clock and chance outside lib/clock and lib/random, in tests too: what a seed cannot replay is not tested. */
export function checkClockAndChance(sources: readonly Source[]): Violation[] {
  return sources
    .filter((source) => !CLOCK_AND_CHANCE.has(source.path))
    .flatMap((source) => {
      const violations: Violation[] = [];
      for (const { node, specifier } of mentionsOf(source)) {
        if (/^(node:)?timers(\/|$)/.test(specifier))
          violations.push(violationAt(source, node, `${specifier} is banned`));
      }
      walk(source.tree, (node) => {
        const name = usedName(node);
        if (name !== undefined)
          violations.push(violationAt(source, node, `${name} is banned outside lib/clock and lib/random`));
      });
      return violations;
    });
}

function usedName(node: ts.Node): string | undefined {
  if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression)) {
    const name = `${node.expression.text}.${node.name.text}`;
    return BANNED_MEMBERS.has(name) ? name : undefined;
  }
  if (ts.isNewExpression(node) && isNamed(node.expression, 'Date') && (node.arguments?.length ?? 0) === 0) {
    return 'new Date()';
  }
  if (ts.isCallExpression(node) && isNamed(node.expression, 'Date')) return 'Date()';
  if (ts.isIdentifier(node) && BANNED_NAMES.has(node.text) && !isOwnMember(node)) return node.text;
  return undefined;
}

function isNamed(node: ts.Node, name: string): boolean {
  return ts.isIdentifier(node) && node.text === name;
}

/** True for the name of somebody's own member: `socket.setTimeout(…)`, `{ setTimeout: … }`, a method so called. */
function isOwnMember(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent) && parent.name === node) {
    return !(isNamed(parent.expression, 'globalThis') || isNamed(parent.expression, 'crypto'));
  }
  return (
    (ts.isPropertyAssignment(parent) ||
      ts.isPropertySignature(parent) ||
      ts.isMethodSignature(parent) ||
      ts.isMethodDeclaration(parent)) &&
    parent.name === node
  );
}

const SUPPRESSIONS = /@ts-(ignore|nocheck|expect-error)/;
const REMINDERS = /\b(TODO|FIXME)\b/;

/** Ways to silence the compiler, to swallow an error, and to leave work for somebody else. */
export function checkSilences(sources: readonly Source[]): Violation[] {
  return sources.flatMap((source) => {
    const violations: Violation[] = [];
    const report = (node: ts.Node, what: string) => violations.push(violationAt(source, node, what));
    walk(source.tree, (node) => {
      if (node.kind === ts.SyntaxKind.AnyKeyword) report(node, '`any` is banned: use `unknown` and look');
      if (ts.isCatchClause(node) && isUnexplained(node.block, source)) {
        report(
          node,
          'an empty catch swallows the error: handle it or say in a comment why it may be dropped',
        );
      }
      if (isCatchCall(node) && node.arguments.some((argument) => swallows(argument, source))) {
        report(node, '.catch() swallows the error: handle it or say in a comment why it may be dropped');
      }
    });
    for (const { position, text } of commentsOf(source)) {
      const { line } = source.tree.getLineAndCharacterOfPosition(position);
      const match = SUPPRESSIONS.exec(text) ?? REMINDERS.exec(text);
      if (match) violations.push({ where: `${source.path}:${line + 1}`, what: `${match[0]} is banned` });
    }
    return violations;
  });
}

function isCatchCall(node: ts.Node): node is ts.CallExpression {
  return (
    ts.isCallExpression(node) &&
    ts.isPropertyAccessExpression(node.expression) &&
    node.expression.name.text === 'catch'
  );
}

function swallows(handler: ts.Expression, source: Source): boolean {
  if (!ts.isArrowFunction(handler) && !ts.isFunctionExpression(handler)) return isNamed(handler, 'noop');
  const { body } = handler;
  if (ts.isBlock(body)) return isUnexplained(body, source);
  const isNothing =
    isNamed(body, 'undefined') || body.kind === ts.SyntaxKind.NullKeyword || ts.isVoidExpression(body);
  return isNothing && !opensWithComment(handler, source);
}

/** A block without statements and without a comment in it or above it. */
function isUnexplained(block: ts.Block, source: Source): boolean {
  const isEmpty = block.statements.length === 0 && !/\/[/*]/.test(block.getText(source.tree));
  return isEmpty && !opensWithComment(block, source);
}

/** True when a comment stands on the line above the handler, or above the statement that it is a part of. */
function opensWithComment(node: ts.Node, source: Source): boolean {
  const statement = ts.findAncestor(node, (ancestor) => ts.isStatement(ancestor) && ancestor !== node);
  const lines = source.text.split('\n');
  return [node, statement ?? node].some((place) => {
    const { line } = source.tree.getLineAndCharacterOfPosition(place.getStart(source.tree));
    return /^\s*(\/\/|\/\*|\*)/.test(lines[line - 1] ?? '');
  });
}

/** Every comment of a file, in no particular order. Strings and templates that look like one are not. */
function commentsOf(source: Source): { position: number; text: string }[] {
  const found = new Map<number, string>();
  const note = (ranges: ts.CommentRange[] | undefined) => {
    for (const { pos, end } of ranges ?? []) found.set(pos, source.text.slice(pos, end));
  };
  const visit = (node: ts.Node) => {
    const children = node.getChildren(source.tree);
    if (children.length === 0 && !ts.isTemplateLiteralToken(node)) {
      note(ts.getLeadingCommentRanges(source.text, node.getFullStart()));
      note(ts.getTrailingCommentRanges(source.text, node.getEnd()));
    }
    for (const child of children) visit(child);
  };
  visit(source.tree);
  return [...found].map(([position, text]) => ({ position, text }));
}

/** Programs talk to people; everything else returns, throws or reports. */
const MAY_USE_CONSOLE = /^(src\/cli\/|scripts\/|bench\/|demo\/|(test|lab)\/(.*\/)?main\.ts$)/;

export function checkConsole(sources: readonly Source[]): Violation[] {
  return sources
    .filter((source) => !MAY_USE_CONSOLE.test(source.path))
    .flatMap((source) => {
      const violations: Violation[] = [];
      walk(source.tree, (node) => {
        if (!ts.isPropertyAccessExpression(node) || !isNamed(node.expression, 'console')) return;
        if (ts.findAncestor(node, isProgramPart) !== undefined) return;
        violations.push(violationAt(source, node, `console.${node.name.text} is banned here`));
      });
      return violations;
    });
}

/** `if (import.meta.main) { … }`: what a file does when it is started instead of imported. */
function isProgramPart(node: ts.Node): boolean {
  return ts.isIfStatement(node) && node.expression.getText() === 'import.meta.main';
}

const FILE_LINES_MAX = 500;
const FUNCTION_LINES_MAX = 100;

export function checkLengths(sources: readonly Source[]): Violation[] {
  return sources
    .filter((source) => folderOf(source.path) !== undefined)
    .flatMap((source) => {
      const violations: Violation[] = [];
      const lines = source.text.split('\n').length - 1;
      if (lines > FILE_LINES_MAX)
        violations.push({ where: source.path, what: `${lines} lines; at most ${FILE_LINES_MAX}` });
      walk(source.tree, (node) => {
        if (!ts.isFunctionLike(node)) return;
        const first = source.tree.getLineAndCharacterOfPosition(node.getStart(source.tree)).line;
        const length = source.tree.getLineAndCharacterOfPosition(node.getEnd()).line - first + 1;
        if (length <= FUNCTION_LINES_MAX) return;
        violations.push(
          violationAt(source, node, `a function of ${length} lines; at most ${FUNCTION_LINES_MAX}`),
        );
      });
      return violations;
    });
}
