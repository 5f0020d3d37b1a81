import type { ImageFile } from '../../src/hypervisor/index.ts';
import { messageOf } from '../../src/lib/errors.ts';
import type { ChainContent } from './chain-content.ts';

/** A promise of the product was broken. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** What cannot be read is a violation: `what` names it. */
export async function attempt<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new Violation(`${what} cannot be read: ${messageOf(error)}`);
  }
}

export function readWhole(content: ChainContent, chain: readonly ImageFile[], what: string): Promise<Buffer> {
  return attempt(what, () => content.read(chain));
}

export function firstDifference(a: Buffer, b: Buffer): string {
  for (let at = 0; at < Math.max(a.length, b.length); at += 512) {
    if (!a.subarray(at, at + 512).equals(b.subarray(at, at + 512))) return `sector ${at / 512}`;
  }
  return 'its end';
}
