import { nbdFailure } from './errors.ts';
import { PAYLOAD_BYTES_MAX, TRANSMISSION_FLAG } from './wire.ts';

/** What the server says about an export. */
export interface NbdExportInfo {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly canFlush: boolean;
  readonly canFua: boolean;
  readonly canTrim: boolean;
  readonly canZero: boolean;
  readonly canFastZero: boolean;
  /** Several connections see each other's writes, and a flush on one covers all. */
  readonly multiConn: boolean;
  /** Offsets and lengths of requests are multiples of this; a power of two. */
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number;
  /** The most that one read or write carries on the wire; the client splits above it. */
  readonly maximumPayloadBytes: number;
  /** The metadata contexts that the server granted, of those that were asked for. */
  readonly contexts: readonly string[];
}

export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

/** What holds when a server says nothing (doc/proto.md, «Block size constraints»). */
export const DEFAULT_BLOCK_SIZES: BlockSizes = { minimum: 1, preferred: 4096, maximum: PAYLOAD_BYTES_MAX };

/** NBD_INFO_BLOCK_SIZE: three unsigned 32-bit numbers. Throws NBD_PROTOCOL for sizes that contradict each other. */
export function decodeBlockSizes(data: Buffer): BlockSizes {
  if (data.length !== 12) throw nbdFailure('NBD_PROTOCOL', `block size info of ${data.length} bytes`);
  const minimum = data.readUInt32BE(0);
  const preferred = data.readUInt32BE(4);
  const maximum = data.readUInt32BE(8);
  const sane =
    isPowerOfTwo(minimum) &&
    minimum <= 65536 &&
    isPowerOfTwo(preferred) &&
    preferred >= minimum &&
    maximum >= minimum;
  if (!sane) {
    throw nbdFailure(
      'NBD_PROTOCOL',
      `block sizes contradict each other: ${minimum}, ${preferred}, ${maximum}`,
    );
  }
  return { minimum, preferred, maximum };
}

export function exportInfo(
  sizeBytes: number,
  flags: number,
  blocks: BlockSizes,
  contexts: readonly string[],
): NbdExportInfo {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  const payload = Math.min(blocks.maximum, PAYLOAD_BYTES_MAX);
  return Object.freeze({
    sizeBytes,
    readOnly: has(TRANSMISSION_FLAG.READ_ONLY),
    canFlush: has(TRANSMISSION_FLAG.SEND_FLUSH),
    canFua: has(TRANSMISSION_FLAG.SEND_FUA),
    canTrim: has(TRANSMISSION_FLAG.SEND_TRIM),
    canZero: has(TRANSMISSION_FLAG.SEND_WRITE_ZEROES),
    canFastZero: has(TRANSMISSION_FLAG.SEND_FAST_ZERO),
    multiConn: has(TRANSMISSION_FLAG.CAN_MULTI_CONN),
    minimumBlockBytes: blocks.minimum,
    preferredBlockBytes: blocks.preferred,
    maximumPayloadBytes: payload - (payload % blocks.minimum),
    contexts: Object.freeze([...contexts]),
  });
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}
