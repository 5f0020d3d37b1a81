import type { FailureRecord } from '../lib/errors.ts';
import { isFields, parseFields } from './messages.ts';

/** What the parent asks of the guard process: one JSON object a line on its standard input. */
export type GuardOrder = { readonly order: 'freeze' } | { readonly order: 'thaw' };

/** What the guard process tells its parent: one JSON object a line on its standard output. */
export type GuardNews =
  /** The agent answers; nothing is frozen yet. */
  | { readonly news: 'ready' }
  /** It could not start, and ends. */
  | { readonly news: 'unready'; readonly failure: FailureRecord }
  | { readonly news: 'frozen'; readonly fileSystems: number }
  /** The freeze failed; the guard makes sure of the thaw and then tells `thawed` or `stuck`. */
  | { readonly news: 'unfrozen'; readonly failure: FailureRecord }
  | { readonly news: 'thawed'; readonly frozenMs: number; readonly cause: ThawCause }
  /** The guest could not be thawed within the last limit; the guard has given up. */
  | { readonly news: 'stuck'; readonly failure: FailureRecord };

/**
 * Why a guest was thawed. Only after `asked` was it frozen for the whole time between `freeze` and `thaw`:
 * the limit had passed, the guest was found thawed already, the freeze itself had failed, a signal told the
 * guard to end, its parent was gone, or the guard was gone (and its parent thawed).
 */
export type ThawCause =
  | 'asked'
  | 'limit'
  | 'not-frozen'
  | 'freeze-failed'
  | 'signal'
  | 'parent-gone'
  | 'guard-gone';

export function encodeLine(message: GuardOrder | GuardNews): string {
  return `${JSON.stringify(message)}\n`;
}

/** Both ends are this program in one version, so only the tag is looked at. */
export function decodeOrder(line: Buffer): GuardOrder | undefined {
  const fields = parseFields(line);
  return fields && typeof fields.order === 'string' ? (fields as unknown as GuardOrder) : undefined;
}

export function decodeNews(line: Buffer): GuardNews | undefined {
  const fields = parseFields(line);
  if (!fields || typeof fields.news !== 'string') return undefined;
  if ('failure' in fields && !isFields(fields.failure)) return undefined;
  return fields as unknown as GuardNews;
}
