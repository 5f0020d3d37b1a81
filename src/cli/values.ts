import { Failure } from '../lib/errors.ts';
import { cliFailure } from './errors.ts';

/**
 * What people write on the command line, and what programs make of it. Every parser throws CLI_VALUE_INVALID with the
 * form that it wants.
 */

const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
};

/** `500ms`, `5s`, `1.5h`, `10m`, `7d`: whole milliseconds. A number alone is refused: its unit would be a guess. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]+)$/.exec(text.trim());
  const unitMs = match ? DURATION_UNITS_MS[match[2]!] : undefined;
  const ms = match && unitMs !== undefined ? Math.round(Number(match[1]) * unitMs) : Number.NaN;
  if (Number.isSafeInteger(ms) && ms > 0) return ms;
  throw invalid(text, 'a duration such as 500ms, 5s, 10m, 24h or 7d');
}

/** As `parseDuration`, or `off`. */
export function parseInterval(text: string): number | 'off' {
  return text === 'off' ? text : parseDuration(text);
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** `512M`, `1.5G`, `64KiB`, `4096`: whole bytes; K, M, G and T are powers of 1024, with or without iB. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?$/i.exec(text.trim());
  if (match && /[KMGT]B$/i.test(text.trim())) {
    throw invalid(text, 'a size with K, M, G or T for powers of 1024; KB and the like could mean either');
  }
  const bytes = match ? Number(match[1]) * SIZE_UNITS[match[2]!.toUpperCase()]! : Number.NaN;
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw invalid(text, 'a size such as 512M, 1.5G or 4096 (bytes)');
}

const BIT_UNITS: Readonly<Record<string, number>> = { k: 1e3, M: 1e6, G: 1e9 };

/** `100M/s` (bytes, powers of 1024), `800Mbit/s` (bits, powers of 1000): bytes a second; or `unlimited`. */
export function parseRate(text: string): number | 'unlimited' {
  if (text === 'unlimited') return text;
  const bits = /^(\d+(?:\.\d+)?)\s*([kMG])bit\/s$/.exec(text.trim());
  const bytes = /^(.+)\/s$/.exec(text.trim());
  if (!bits && bytes) return parseSize(bytes[1]!);
  const bytesPerSecond = bits ? Math.floor((Number(bits[1]) * BIT_UNITS[bits[2]!]!) / 8) : Number.NaN;
  if (Number.isSafeInteger(bytesPerSecond) && bytesPerSecond > 0) return bytesPerSecond;
  throw invalid(text, 'a rate such as 100M/s, 800Mbit/s or unlimited');
}

/** A whole number between the bounds, both included. */
export function parseCount(text: string, minimum: number, maximum: number): number {
  const count = /^\d{1,15}$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (count >= minimum && count <= maximum) return count;
  throw invalid(text, `a whole number from ${minimum} to ${maximum}`);
}

/** A TCP port; 0 lets the system choose one. */
export function parsePort(text: string): number {
  return parseCount(text, 0, 65_535);
}

/** `host:7443`, `192.0.2.7:7443`, `[2001:db8::7]:7443`: a host without brackets, and a TCP port other than 0. */
export function parseAddress(text: string): { readonly host: string; readonly port: number } {
  const [, v6, name, digits] =
    /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z._-]+)):(\d{1,5})$/.exec(text.trim()) ?? [];
  const host = v6 ?? name;
  const port = Number(digits);
  if (host !== undefined && host.length <= 253 && port > 0 && port <= 65_535) return { host, port };
  throw invalid(text, 'an address such as south.example.com:7443 or [2001:db8::7]:7443');
}

/** One of a few words. */
export function parseWord<W extends string>(text: string, words: readonly W[]): W {
  const word = words.find((candidate) => candidate === text);
  if (word !== undefined) return word;
  throw invalid(text, `one of ${words.join(', ')}`);
}

/** What a copy type may be called. */
export function parseName(text: string): string {
  if (/^[a-z][a-z0-9-]{0,31}$/.test(text)) return text;
  throw invalid(text, 'a name of small letters, digits and hyphens that begins with a letter');
}

/** The failure for a value that is not in its form; `form` completes «it must be …». */
export function invalid(text: string, form: string): Failure {
  return cliFailure('CLI_VALUE_INVALID', `«${text}» is not ${form}`, { context: { value: text } });
}

/** Names the option or argument in a failure of its parser. */
export function named<T>(what: string, parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      throw cliFailure('CLI_VALUE_INVALID', `${what}: ${error.message}`, { context: error.context });
    }
  };
}

/** For an option that may be given several times: the parsed values in their order. */
export function listed<T>(
  what: string,
  parse: (text: string) => T,
): (text: string, before: readonly T[] | undefined) => T[] {
  const parseOne = named(what, parse);
  return (text, before) => [...(before ?? []), parseOne(text)];
}
