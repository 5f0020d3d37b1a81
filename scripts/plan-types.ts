import { dirname, join } from 'node:path';
import ts from 'typescript';

const ROOT = dirname(import.meta.dirname);
const SOURCE = join(ROOT, 'src', 'plan', 'exported.ts');

/**
 * `types/plan.d.ts`: what `warmsite/plan` exports, in one file that needs no other: whoever checks a plan with a compiler of their own has
 * neither our sources in it nor the library that our schemas are made with. The comments are those of the schemas.
 */
export function planTypes(): string {
  const program = ts.createProgram([SOURCE], {
    ...{ strict: true, noEmit: true, skipLibCheck: true, types: ['node'], allowImportingTsExtensions: true },
    ...{ module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext },
    target: ts.ScriptTarget.ES2024,
  });
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(SOURCE)!)!;
  const exported = checker.getExportsOfModule(module);
  const parts = exported.map((symbol) => `${commentOf(checker, symbol, '')}${declared(checker, symbol)}\n`);
  return `// Written from src/plan/exported.ts by \`npm run docs\`; a test keeps them equal.\n\n${parts.join('\n')}`;
}

function declared(checker: ts.TypeChecker, symbol: ts.Symbol): string {
  const { name, valueDeclaration } = symbol;
  if (!valueDeclaration) {
    return `export type ${name} = ${written(checker, checker.getDeclaredTypeOfSymbol(symbol), '')};`;
  }
  const [signature] = checker.getTypeOfSymbol(symbol).getCallSignatures();
  if (!signature) throw new Error(`${name} is exported, and is neither a type nor a function`);
  return `export declare function ${name}${checker.signatureToString(signature)};`;
}

/** A type written out, whatever it is called in our sources. */
function written(checker: ts.TypeChecker, type: ts.Type, indent: string): string {
  if (type.isUnion() && !(type.flags & ts.TypeFlags.Boolean)) {
    const members = type.types.filter(({ flags }) => !(flags & ts.TypeFlags.Undefined));
    if (members.every(({ flags }) => flags & ts.TypeFlags.BooleanLiteral)) return 'boolean';
    return members.map((member) => written(checker, member, indent)).join(' | ');
  }
  if (checker.isArrayType(type)) {
    const [element] = checker.getTypeArguments(type as ts.TypeReference);
    const text = written(checker, element!, indent);
    // What is not changed by anybody may be given as a constant.
    return `readonly ${/ \| |^readonly /.test(text) ? `(${text})` : text}[]`;
  }
  if (!(type.flags & ts.TypeFlags.Object)) return checker.typeToString(type);
  const deeper = `${indent}  `;
  const index = checker.getIndexInfosOfType(type)[0];
  const lines = [
    ...(index ? [`${deeper}readonly [name: string]: ${written(checker, index.type, deeper)};`] : []),
    ...type.getProperties().map((property) => memberOf(checker, property, deeper)),
  ];
  return `{\n${lines.join('\n')}\n${indent}}`;
}

function memberOf(checker: ts.TypeChecker, property: ts.Symbol, indent: string): string {
  const mark = property.flags & ts.SymbolFlags.Optional ? '?' : '';
  const type = written(checker, checker.getTypeOfSymbol(property), indent);
  return `${commentOf(checker, property, indent)}${indent}readonly ${property.name}${mark}: ${type};`;
}

function commentOf(checker: ts.TypeChecker, symbol: ts.Symbol, indent: string): string {
  const text = ts.displayPartsToString(symbol.getDocumentationComment(checker));
  return text === '' ? '' : `${indent}/** ${text.replaceAll('\n', ' ')} */\n`;
}
