import { randomBytes } from 'node:crypto';
import type { Clock } from './clock.ts';

/** Chance, passed in wherever it matters so that a seed can replay a run. */
export interface Random {
  /** `count` unpredictable bytes. */
  bytes(count: number): Buffer;
}

export const systemRandom: Random = { bytes: (count) => randomBytes(count) };

/** A whole number in [0, below). Slightly biased for large `below`: for jitter and choice, not for keys. */
export function randomBelow(random: Random, below: number): number {
  return Math.floor((random.bytes(6).readUIntBE(0, 6) / 2 ** 48) * below);
}

const CROCKFORD = '0123456789abcdefghjkmnpqrstvwxyz';

/**
 * An identifier of 26 characters that sorts by time of birth: 48 bits of wall clock, 80 bits of chance
 * (the ULID layout, in lower case because it names files). Sorting is a convenience for people; order is
 * decided by sequence numbers.
 */
export function newId(clock: Pick<Clock, 'wallMs'>, random: Random): string {
  let time = clock.wallMs();
  let head = '';
  for (let i = 0; i < 10; i++) {
    head = CROCKFORD[time % 32] + head;
    time = Math.floor(time / 32);
  }
  let tail = '';
  for (const byte of random.bytes(16)) tail += CROCKFORD[byte & 31];
  return head + tail;
}

/** The wall clock of its site when an id was made. */
export function bornAtMs(id: string): number {
  return [...id.slice(0, 10)].reduce((ms, digit) => ms * 32 + CROCKFORD.indexOf(digit), 0);
}

/** A random UUID (RFC 9562, version 4). */
export function uuidOf(random: Random): string {
  const bytes = Buffer.from(random.bytes(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** What an id looks like, as schemas say it. */
export const ID_PATTERN = '^[0-9a-hjkmnp-tv-z]{26}$';
const ID = new RegExp(ID_PATTERN);

/** Whether a string may be used as an id and thus as part of a file name. */
export function isId(value: string): boolean {
  return ID.test(value);
}
