import { capabilityIdsIn } from '../../scripts/capability-id.ts';
import type { Document } from './documents.ts';
import type { Violation } from './sources.ts';

const TITLE = /\b(?:test|it)\(\s*['"`](.*)/g;

/** What a test that is left to the full size proves is proven by another one each time, if less thoroughly. */
export function checkFullSizeOnly(documents: readonly Document[]): Violation[] {
  const always = new Set<string>();
  const later: { readonly capability: string; readonly where: string }[] = [];
  for (const { path, text } of documents) {
    if (!path.startsWith('test/') || !path.endsWith('.test.ts')) continue;
    for (const [, title] of text.matchAll(TITLE)) {
      for (const capability of capabilityIdsIn(title!)) {
        if (path.endsWith('.full.test.ts')) later.push({ capability, where: path });
        else always.add(capability);
      }
    }
  }
  return later
    .filter(({ capability }) => !always.has(capability))
    .map(({ capability, where }) => ({ where, what: `no test of every run proves ${capability}` }));
}
