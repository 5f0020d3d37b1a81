import { canonicalJson, type Json } from '../lib/canonical-json.ts';
import { deltaFailure } from './errors.ts';

/** Objects and arrays inside each other; more is refused, because checkers recurse. */
const DEPTH_MAX = 64;

/** The canonical text; throws DELTA_LIMIT if it is longer than `bytesMax` or nested too deeply. */
export function encodeJson(value: Json, bytesMax: number, what: string): Buffer {
  if (!isPlain(value)) {
    throw deltaFailure('DELTA_LIMIT', `the ${what} is nested too deeply or has a number out of range`);
  }
  const bytes = Buffer.from(canonicalJson(value));
  if (bytes.length > bytesMax) {
    throw deltaFailure('DELTA_LIMIT', `the ${what} has ${bytes.length} bytes; ${bytesMax} are allowed`);
  }
  return bytes;
}

/**
 * The value of a payload, which must be the canonical text of that value: this refuses white space, members
 * named twice, bytes that are not UTF-8 and any other second spelling in one comparison. Throws DELTA_INVALID.
 */
export function decodeJson(payload: Uint8Array, what: string): Json {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length);
  let value: Json;
  try {
    value = JSON.parse(bytes.toString('utf8')) as Json;
  } catch (error) {
    throw deltaFailure('DELTA_INVALID', `the ${what} is not JSON`, { cause: error });
  }
  if (!isPlain(value)) {
    throw deltaFailure('DELTA_INVALID', `the ${what} is nested too deeply or has a number out of range`);
  }
  if (!Buffer.from(canonicalJson(value)).equals(bytes)) {
    throw deltaFailure('DELTA_INVALID', `the ${what} is not canonical JSON`);
  }
  return value;
}

/** Whether `canonicalJson` can take it: finite numbers, limited depth. Walks without recursion. */
function isPlain(root: Json): boolean {
  const open: { value: readonly Json[] | object; depth: number }[] = [{ value: [root], depth: 0 }];
  for (let next = open.pop(); next; next = open.pop()) {
    if (next.depth > DEPTH_MAX) return false;
    for (const child of Object.values(next.value)) {
      if (typeof child === 'number' && !Number.isFinite(child)) return false;
      if (typeof child === 'object' && child !== null) open.push({ value: child, depth: next.depth + 1 });
    }
  }
  return true;
}
