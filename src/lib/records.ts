import type Type from 'typebox';
import { Value } from 'typebox/value';
import { libFailure, messageOf } from './errors.ts';
import { type FileSystem, publishFile, readSmallFile } from './files.ts';

/** The version of this program; every stored and sent record names the program that wrote it. */
export const WARMSITE_VERSION = '0.1.0';

/** The head of every stored or sent JSON record. */
export interface RecordHead {
  /** What it is: `point`, `cut`, `peer`, … */
  readonly record: string;
  /** Version of this kind of record, from 1. A reader refuses a version that it does not know. */
  readonly version: number;
  /** The program version that wrote it: for people, never for decisions. */
  readonly warmsite: string;
}

/** One kind of record: its name, the newest version known here, and the check of its content. */
export interface RecordKind<T> {
  readonly record: string;
  readonly version: number;
  /** Whether a parsed value has the shape of T. */
  readonly accepts: (value: unknown) => value is T;
  /** Brings a value of an older version to the present shape, as far as it can be known; it is checked afterwards. */
  readonly upgrade?: (value: object, version: number) => unknown;
}

/** A kind of record whose content is checked by a schema. */
export function recordKind<S extends Type.TSchema>(
  record: string,
  version: number,
  schema: S,
  upgrade?: RecordKind<Type.Static<S>>['upgrade'],
): RecordKind<Type.Static<S>> {
  return {
    ...{ record, version, ...(upgrade ? { upgrade } : {}) },
    accepts: (value): value is Type.Static<S> => Value.Check(schema, value),
  };
}

/** No record is larger than this; a larger file under a record's name is damage. */
const RECORD_BYTES_MAX = 16 * 1024 * 1024;

export function encodeRecord<T extends object>(kind: RecordKind<T>, body: T): Buffer {
  const head: RecordHead = { record: kind.record, version: kind.version, warmsite: WARMSITE_VERSION };
  // The head stands first, and counts whatever the body has.
  return Buffer.from(`${JSON.stringify({ ...head, ...body, ...head }, null, 2)}\n`);
}

/**
 * The body of a record, without its head. Throws RECORD_NEWER for a version above the known one (nothing may be rewritten
 * then) and RECORD_CORRUPT for anything that is not such a record. `source` names the file or peer in the message.
 */
export function decodeRecord<T extends object>(kind: RecordKind<T>, bytes: Uint8Array, source: string): T {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    throw corrupt(kind, source, messageOf(error));
  }
  if (typeof value !== 'object' || value === null) throw corrupt(kind, source, 'not an object');
  const head = value as Partial<RecordHead>;
  if (head.record !== kind.record) throw corrupt(kind, source, `it is a «${String(head.record)}»`);
  if (typeof head.version !== 'number') throw corrupt(kind, source, 'it has no version');
  if (head.version > kind.version) {
    throw libFailure(
      'RECORD_NEWER',
      `${source} is a ${kind.record} record of version ${head.version}; known here: ${kind.version}`,
      {
        context: { source, version: head.version },
      },
    );
  }
  const present = upgraded(kind, value, head.version, source);
  if (!kind.accepts(present)) throw corrupt(kind, source, 'fields are missing or of the wrong type');
  return withoutHead(present);
}

/** What is damaged may lack what an older version had: to bring it to the present shape fails then, as the check of that shape would. */
function upgraded<T>(kind: RecordKind<T>, value: object, version: number, source: string): unknown {
  if (kind.upgrade === undefined || version >= kind.version) return value;
  try {
    return kind.upgrade(value, version);
  } catch (error) {
    throw corrupt(
      kind,
      source,
      `its version ${version} cannot be brought to ${kind.version}: ${messageOf(error)}`,
    );
  }
}

/** What is taken over from a record, or shown, must not carry a head that nobody asked for. */
function withoutHead<T extends object>(record: T): T {
  const body: T & { -readonly [Member in keyof RecordHead]?: RecordHead[Member] } = { ...record };
  delete body.record;
  delete body.version;
  delete body.warmsite;
  return body;
}

function corrupt(kind: { record: string }, source: string, why: string) {
  return libFailure('RECORD_CORRUPT', `${source} is not a valid ${kind.record} record: ${why}`, {
    context: { source, record: kind.record },
  });
}

/** Durable on return: see `publishFile`. */
export function storeRecord<T extends object>(
  files: FileSystem,
  path: string,
  kind: RecordKind<T>,
  body: T,
): Promise<void> {
  return publishFile(files, path, encodeRecord(kind, body));
}

export async function loadRecord<T extends object>(
  files: FileSystem,
  path: string,
  kind: RecordKind<T>,
): Promise<T | undefined> {
  const bytes = await readSmallFile(files, path, RECORD_BYTES_MAX);
  return bytes === undefined ? undefined : decodeRecord(kind, bytes, path);
}
