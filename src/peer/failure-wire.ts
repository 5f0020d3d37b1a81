import {
  Failure,
  type FailureContext,
  type FailureKind,
  type FailureRecord,
  KIND_TABLE,
  type Retry,
} from '../lib/errors.ts';
import { peerFailure } from './errors.ts';
import { LIMIT } from './protocol.ts';

const RETRIES: readonly string[] = ['never', 'later', 'reconnect'] satisfies Retry[];

/**
 * What the other side is told of an error: a Failure as it is, anything else as PEER_INTERNAL, because the text of
 * an unexpected error may hold what is none of the peer's business.
 */
export function failureForWire(error: unknown): FailureRecord {
  if (error instanceof Failure) return error.toJSON();
  return peerFailure('PEER_INTERNAL', 'an unexpected error happened at the site that answered').toJSON();
}

/**
 * The failure that a peer reported, to be thrown here: same code, kind, retry and hint, `context.remote` = the
 * name of the site. A record that breaks the rules is PEER_PROTOCOL_INVALID. Texts lose control characters and
 * what is beyond the limits, because they reach logs and terminals.
 */
export function failureFromWire(value: unknown, remote: string): Failure {
  const record = value as Partial<FailureRecord> | null | undefined;
  if (
    typeof record !== 'object' ||
    record === null ||
    typeof record.code !== 'string' ||
    !/^[A-Z][A-Z0-9_]{1,63}$/.test(record.code) ||
    !isKind(record.kind) ||
    typeof record.retry !== 'string' ||
    !RETRIES.includes(record.retry) ||
    typeof record.message !== 'string' ||
    typeof record.hint !== 'string'
  ) {
    return peerFailure('PEER_PROTOCOL_INVALID', `${remote} reported a failure in a form unknown here`, {
      context: { remote },
    });
  }
  const entry = { kind: record.kind, retry: record.retry, remedy: cleaned(record.hint) };
  return new Failure(record.code, entry, cleaned(record.message), {
    context: { ...contextFromWire(record.context), remote },
  });
}

function isKind(value: unknown): value is FailureKind {
  return typeof value === 'string' && Object.hasOwn(KIND_TABLE, value);
}

function contextFromWire(value: unknown): FailureContext {
  if (typeof value !== 'object' || value === null) return {};
  const context: Record<string, string | number | boolean | null> = {};
  for (const [name, field] of Object.entries(value).slice(0, LIMIT.failureContextFields)) {
    if (!/^[A-Za-z][A-Za-z0-9]{0,63}$/.test(name)) continue;
    if (typeof field === 'string') context[name] = cleaned(field);
    else if (typeof field === 'number' || typeof field === 'boolean' || field === null) context[name] = field;
  }
  return context;
}

function cleaned(text: string): string {
  return text.slice(0, LIMIT.failureTextCharacters).replace(/[\p{Cc}\p{Cf}]+/gu, ' ');
}
