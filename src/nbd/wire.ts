/**
 * The numbers of the NBD protocol, under the names that its document gives them (NetworkBlockDevice/nbd,
 * doc/proto.md, sections «Values» and «Protocol phases»), and the layout of a request.
 */

/** «NBDMAGIC»: the first eight bytes of any NBD server. */
export const SERVER_MAGIC = 0x4e42444d41474943n;
/** «IHAVEOPT»: newstyle negotiation, and the start of every option request. */
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const HANDSHAKE_FLAG = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const OPTION = { STARTTLS: 5, GO: 7, STRUCTURED_REPLY: 8, SET_META_CONTEXT: 10 } as const;

export const OPTION_REPLY = { ACK: 1, INFO: 3, META_CONTEXT: 4 } as const;

export const OPTION_ERROR_BIT = 0x80000000;

export const OPTION_ERROR = {
  UNSUP: 0x80000001,
  POLICY: 0x80000002,
  INVALID: 0x80000003,
  PLATFORM: 0x80000004,
  TLS_REQD: 0x80000005,
  UNKNOWN: 0x80000006,
  SHUTDOWN: 0x80000007,
  BLOCK_SIZE_REQD: 0x80000008,
  TOO_BIG: 0x80000009,
} as const;

export const INFO = { EXPORT: 0, BLOCK_SIZE: 3 } as const;

export const TRANSMISSION_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  CAN_MULTI_CONN: 1 << 8,
  SEND_FAST_ZERO: 1 << 11,
} as const;

export const COMMAND = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;
export type Command = (typeof COMMAND)[keyof typeof COMMAND];

const COMMAND_NAMES: Readonly<Record<Command, string>> = {
  0: 'read',
  1: 'write',
  2: 'disconnect',
  3: 'flush',
  4: 'trim',
  6: 'write-zeroes',
  7: 'block-status',
};

export function commandName(command: Command): string {
  return COMMAND_NAMES[command];
}

export const COMMAND_FLAG = { FUA: 1, NO_HOLE: 2, FAST_ZERO: 16 } as const;

export const REPLY_FLAG_DONE = 1;

export const CHUNK = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR_OFFSET: 0x8002,
} as const;
export const CHUNK_ERROR_BIT = 0x8000;

/** Strings of the protocol (export names, contexts, error texts) have at most this many bytes. */
export const STRING_BYTES_MAX = 4096;

/**
 * What a server that names no maximum must still accept in one read or write, and also the most that is put
 * into one request here whatever the server allows.
 */
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;

/** Block descriptors in one reply: nbdkit sends up to 2²⁰, QEMU up to 2¹⁷; more is refused. */
export const STATUS_DESCRIPTORS_MAX = 1024 * 1024;

/** The upper half of every cookie, so that stray bytes do not pass for a reply («warm»). */
export const COOKIE_HIGH = 0x7761726d;

const REQUEST_BYTES = 28;

/** A request header: magic, flags, type, cookie, offset, length, all big-endian. */
export function encodeRequest(
  command: Command,
  flags: number,
  cookieLow: number,
  offset: number,
  length: number,
): Buffer {
  const header = Buffer.allocUnsafe(REQUEST_BYTES);
  header.writeUInt32BE(REQUEST_MAGIC, 0);
  header.writeUInt16BE(flags, 4);
  header.writeUInt16BE(command, 6);
  header.writeUInt32BE(COOKIE_HIGH, 8);
  header.writeUInt32BE(cookieLow, 12);
  writeUint64(header, offset, 16);
  header.writeUInt32BE(length, 24);
  return header;
}

/** Unsigned 64 bits, big-endian; `value` is a safe integer. */
function writeUint64(target: Buffer, value: number, at: number): void {
  target.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  target.writeUInt32BE(value % 2 ** 32, at + 4);
}

/** Unsigned 64 bits, big-endian, without BigInt. Above 2⁵³ the result is rounded: compare, then refuse. */
export function readUint64(source: Buffer, at: number): number {
  return source.readUInt32BE(at) * 2 ** 32 + source.readUInt32BE(at + 4);
}

/** The errors that the protocol knows; `EXXX` names as on Linux. */
const ERRNO_NAMES: Readonly<Record<number, string>> = {
  1: 'EPERM',
  5: 'EIO',
  12: 'ENOMEM',
  22: 'EINVAL',
  28: 'ENOSPC',
  75: 'EOVERFLOW',
  95: 'ENOTSUP',
  108: 'ESHUTDOWN',
};

export function errnoName(errno: number): string {
  return ERRNO_NAMES[errno] ?? `errno ${errno}`;
}

/** Text that a server sent, made fit for a message: UTF-8, no control characters, not endless. */
export function serverText(bytes: Buffer): string {
  return bytes
    .toString('utf8')
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .slice(0, 500);
}
