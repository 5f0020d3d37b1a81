import type { Failure } from '../lib/errors.ts';
import type { ByteReader } from './byte-reader.ts';
import { nbdFailure } from './errors.ts';
import { type BlockSizes, DEFAULT_BLOCK_SIZES, decodeBlockSizes } from './export-info.ts';
import {
  HANDSHAKE_FLAG,
  INFO,
  OPTION,
  OPTION_ERROR,
  OPTION_ERROR_BIT,
  OPTION_MAGIC,
  OPTION_REPLY,
  OPTION_REPLY_MAGIC,
  readUint64,
  SERVER_MAGIC,
  STRING_BYTES_MAX,
  serverText,
  TRANSMISSION_FLAG,
} from './wire.ts';

/** Replies to options carry names and texts of at most 4 KiB each; nothing legitimate comes near this. */
const OPTION_REPLY_BYTES_MAX = 16 * 1024;
/** Replies before the acknowledgement of one option. */
const OPTION_REPLIES_MAX = 256;

/** What both sides agreed on; the next bytes of the stream are replies to requests. */
export interface Agreement {
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
  readonly blocks: BlockSizes;
  /** Whether replies are structured; without them there are no contexts and errors in mid-read disconnect. */
  readonly structured: boolean;
  /** Granted contexts, name to the number that block status replies use. */
  readonly contexts: ReadonlyMap<string, number>;
}

/** The two directions of a stream under negotiation. */
export interface Line {
  readonly reader: ByteReader;
  send(bytes: Buffer): void;
}

/** The greeting of fixed newstyle (doc/proto.md, «Newstyle negotiation»). Anything older is NBD_UNSUPPORTED. */
export async function greet(line: Line): Promise<void> {
  const head = await line.reader.take(18);
  if (head.readBigUInt64BE(0) !== SERVER_MAGIC) {
    throw nbdFailure('NBD_PROTOCOL', 'what listens there is no NBD server');
  }
  if (head.readBigUInt64BE(8) !== OPTION_MAGIC) {
    throw nbdFailure('NBD_UNSUPPORTED', 'the server speaks the oldstyle protocol only');
  }
  const offered = head.readUInt16BE(16);
  if ((offered & HANDSHAKE_FLAG.FIXED_NEWSTYLE) === 0) {
    throw nbdFailure('NBD_UNSUPPORTED', 'the server does not speak fixed newstyle');
  }
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(HANDSHAKE_FLAG.FIXED_NEWSTYLE | (offered & HANDSHAKE_FLAG.NO_ZEROES));
  line.send(flags);
}

/**
 * Asks for TLS. Bytes that came in the clear after the agreement would be taken for encrypted ones (an
 * injection, CVE-2021-3716 was one): they end the connection.
 */
export async function askForTls(line: Line): Promise<void> {
  const { end } = await ask(line, OPTION.STARTTLS, Buffer.alloc(0));
  if (end.type !== OPTION_REPLY.ACK) {
    throw nbdFailure('NBD_TLS_FAILED', `the server refuses TLS (${refusal(end)})`);
  }
  if (line.reader.rest().length > 0) {
    throw nbdFailure('NBD_TLS_FAILED', 'bytes in the clear followed the agreement on TLS');
  }
}

/**
 * Structured replies, then the contexts, then NBD_OPT_GO, which ends the handshake. Contexts that the server
 * does not know are left out of the agreement; nothing fails for them.
 */
export async function negotiate(
  line: Line,
  exportName: string,
  contexts: readonly string[],
): Promise<Agreement> {
  const structured = await askForStructuredReplies(line);
  const granted =
    structured && contexts.length > 0
      ? await askForContexts(line, exportName, contexts)
      : new Map<string, number>();
  const name = lengthAndText(exportName);
  const wanted = Buffer.alloc(4);
  wanted.writeUInt16BE(1, 0);
  wanted.writeUInt16BE(INFO.BLOCK_SIZE, 2);
  const { replies, end } = await ask(line, OPTION.GO, Buffer.concat([name, wanted]));
  if (end.type !== OPTION_REPLY.ACK) throw refusedExport(end, exportName);
  let blocks = DEFAULT_BLOCK_SIZES;
  let size: { sizeBytes: number; flags: number } | undefined;
  for (const { type, data } of replies) {
    if (type !== OPTION_REPLY.INFO || data.length < 2) throw unexpected(type, OPTION.GO);
    const kind = data.readUInt16BE(0);
    if (kind === INFO.EXPORT) size = decodeExport(data);
    if (kind === INFO.BLOCK_SIZE) blocks = decodeBlockSizes(data.subarray(2));
    // Other kinds (names, descriptions, later inventions) are for people: the protocol says to ignore them.
  }
  if (size === undefined) throw nbdFailure('NBD_PROTOCOL', 'the server agreed without telling the size');
  return {
    sizeBytes: size.sizeBytes,
    transmissionFlags: size.flags,
    blocks,
    structured,
    contexts: granted,
  };
}

async function askForStructuredReplies(line: Line): Promise<boolean> {
  const { replies, end } = await ask(line, OPTION.STRUCTURED_REPLY, Buffer.alloc(0));
  if (replies.length > 0) throw unexpected(replies[0]!.type, OPTION.STRUCTURED_REPLY);
  if (end.type === OPTION_REPLY.ACK) return true;
  if (end.type === OPTION_ERROR.TLS_REQD) throw tlsRequired(end);
  return false;
}

async function askForContexts(
  line: Line,
  exportName: string,
  contexts: readonly string[],
): Promise<Map<string, number>> {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(contexts.length);
  const query = Buffer.concat([lengthAndText(exportName), count, ...contexts.map(lengthAndText)]);
  const { replies, end } = await ask(line, OPTION.SET_META_CONTEXT, query);
  const granted = new Map<string, number>();
  if (end.type !== OPTION_REPLY.ACK) {
    if (end.type === OPTION_ERROR.UNKNOWN) throw refusedExport(end, exportName);
    // A server without metadata contexts says so by an error; the export is still of use.
    if (end.type === OPTION_ERROR.UNSUP || end.type === OPTION_ERROR.PLATFORM) return granted;
    throw nbdFailure('NBD_NEGOTIATION_REFUSED', `the server refuses the metadata contexts (${refusal(end)})`);
  }
  for (const { type, data } of replies) {
    if (type !== OPTION_REPLY.META_CONTEXT || data.length < 5)
      throw unexpected(type, OPTION.SET_META_CONTEXT);
    const context = data.subarray(4).toString('utf8');
    if (!contexts.includes(context) || granted.has(context)) {
      throw nbdFailure(
        'NBD_PROTOCOL',
        `the server granted a context twice or unasked: ${serverText(data.subarray(4))}`,
      );
    }
    const id = data.readUInt32BE(0);
    if ([...granted.values()].includes(id)) {
      throw nbdFailure('NBD_PROTOCOL', `the server gave two contexts the number ${id}`);
    }
    granted.set(context, id);
  }
  return granted;
}

function decodeExport(data: Buffer): { sizeBytes: number; flags: number } {
  if (data.length !== 12) throw nbdFailure('NBD_PROTOCOL', `export info of ${data.length} bytes`);
  const sizeBytes = readUint64(data, 2);
  if (!Number.isSafeInteger(sizeBytes)) {
    throw nbdFailure(
      'NBD_UNSUPPORTED',
      `an export of ${data.readBigUInt64BE(2)} bytes is too large for this client`,
    );
  }
  const flags = data.readUInt16BE(10);
  if ((flags & TRANSMISSION_FLAG.HAS_FLAGS) === 0) {
    throw nbdFailure('NBD_PROTOCOL', 'the server sent transmission flags without their marker');
  }
  return { sizeBytes, flags };
}

interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

/** Sends one option and collects its replies up to the last one: an acknowledgement or an error. */
async function ask(
  line: Line,
  option: number,
  data: Buffer,
): Promise<{ replies: OptionReply[]; end: OptionReply }> {
  const request = Buffer.alloc(16);
  request.writeBigUInt64BE(OPTION_MAGIC, 0);
  request.writeUInt32BE(option, 8);
  request.writeUInt32BE(data.length, 12);
  line.send(Buffer.concat([request, data]));
  const replies: OptionReply[] = [];
  while (replies.length <= OPTION_REPLIES_MAX) {
    const head = await line.reader.take(20);
    if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) {
      throw nbdFailure('NBD_PROTOCOL', 'a reply to an option begins with the wrong magic');
    }
    if (head.readUInt32BE(8) !== option) {
      throw nbdFailure(
        'NBD_PROTOCOL',
        `the server answered option ${head.readUInt32BE(8)} instead of ${option}`,
      );
    }
    const type = head.readUInt32BE(12);
    const length = head.readUInt32BE(16);
    if (length > OPTION_REPLY_BYTES_MAX) {
      throw nbdFailure('NBD_PROTOCOL', `a reply of ${length} bytes to option ${option}`);
    }
    const reply = { type, data: length === 0 ? Buffer.alloc(0) : await line.reader.take(length) };
    if (type >= OPTION_ERROR_BIT) return { replies, end: reply };
    if (type === OPTION_REPLY.ACK) {
      if (length > 0) throw nbdFailure('NBD_PROTOCOL', 'an acknowledgement with data');
      return { replies, end: reply };
    }
    replies.push(reply);
  }
  throw nbdFailure('NBD_PROTOCOL', `endless replies to option ${option}`);
}

const REFUSALS: Readonly<Record<number, string>> = {
  [OPTION_ERROR.UNSUP]: 'option not supported',
  [OPTION_ERROR.POLICY]: 'forbidden by policy',
  [OPTION_ERROR.INVALID]: 'option invalid',
  [OPTION_ERROR.PLATFORM]: 'not supported on its platform',
  [OPTION_ERROR.TLS_REQD]: 'TLS required',
  [OPTION_ERROR.UNKNOWN]: 'export unknown',
  [OPTION_ERROR.SHUTDOWN]: 'server shutting down',
  [OPTION_ERROR.BLOCK_SIZE_REQD]: 'block sizes must be asked for',
  [OPTION_ERROR.TOO_BIG]: 'request too big',
};

function refusal(reply: OptionReply): string {
  const text = serverText(reply.data);
  const name = REFUSALS[reply.type] ?? `reply 0x${reply.type.toString(16)}`;
  return text === '' ? name : `${name}: ${text}`;
}

function refusedExport(reply: OptionReply, exportName: string): Failure {
  const context = { exportName };
  switch (reply.type) {
    case OPTION_ERROR.UNKNOWN:
      return nbdFailure('NBD_EXPORT_UNKNOWN', `no export «${exportName}» (${refusal(reply)})`, { context });
    case OPTION_ERROR.TLS_REQD:
      return tlsRequired(reply);
    case OPTION_ERROR.UNSUP:
      return nbdFailure('NBD_UNSUPPORTED', 'the server does not know NBD_OPT_GO', { context });
    case OPTION_ERROR.SHUTDOWN:
      return nbdFailure('NBD_DISCONNECTED', 'the server is shutting down', { context });
    default:
      return nbdFailure('NBD_NEGOTIATION_REFUSED', `export «${exportName}» refused (${refusal(reply)})`, {
        context,
      });
  }
}

function tlsRequired(reply: OptionReply): Failure {
  return nbdFailure('NBD_TLS_REQUIRED', `the server talks over TLS only (${refusal(reply)})`);
}

function unexpected(type: number, option: number): Failure {
  return nbdFailure('NBD_PROTOCOL', `an unexpected reply of type ${type} to option ${option}`);
}

/** Throws NBD_REQUEST_INVALID for names that the protocol cannot carry. */
export function checkName(what: string, name: string): void {
  if (Buffer.byteLength(name) <= STRING_BYTES_MAX && !name.includes('\0')) return;
  throw nbdFailure(
    'NBD_REQUEST_INVALID',
    `${what} is longer than ${STRING_BYTES_MAX} bytes or contains a NUL`,
    {
      hint: 'Use a shorter name.',
    },
  );
}

function lengthAndText(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  const head = Buffer.alloc(4);
  head.writeUInt32BE(bytes.length);
  return Buffer.concat([head, bytes]);
}
