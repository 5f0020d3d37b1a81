import { crc32 } from 'node:zlib';
import { readU64, writeU64 } from './format.ts';

export const HEAD_BYTES = 28;
const CRC_AT = 24;

export const FRAME_TYPES = { header: 1, data: 2, zero: 3, trailer: 4, same: 5 } as const;
export type FrameType = keyof typeof FRAME_TYPES;

const COMPRESSIONS = { none: 0, zstd: 1 } as const;
export type Compression = keyof typeof COMPRESSIONS;

const TYPE_NAMES: ReadonlyMap<number, FrameType> = new Map([
  [FRAME_TYPES.header, 'header'],
  [FRAME_TYPES.data, 'data'],
  [FRAME_TYPES.zero, 'zero'],
  [FRAME_TYPES.trailer, 'trailer'],
  [FRAME_TYPES.same, 'same'],
]);
const COMPRESSION_NAMES: ReadonlyMap<number, Compression> = new Map([
  [COMPRESSIONS.none, 'none'],
  [COMPRESSIONS.zstd, 'zstd'],
]);

/** The fields of a frame's head; see docs/format.md, «Frame head». Lengths and offsets in bytes. */
export interface FrameHead {
  readonly type: FrameType;
  readonly compression: Compression;
  readonly disk: number;
  readonly payloadLength: number;
  readonly guestOffset: number;
  readonly guestLength: number;
}

/** The head as its 28 bytes, with the CRC over it and `payload`. */
export function encodeHead(head: FrameHead, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES);
  bytes.writeUInt8(FRAME_TYPES[head.type], 0);
  bytes.writeUInt8(COMPRESSIONS[head.compression], 1);
  bytes.writeUInt16BE(head.disk, 2);
  bytes.writeUInt32BE(head.payloadLength, 4);
  writeU64(bytes, head.guestOffset, 8);
  writeU64(bytes, head.guestLength, 16);
  bytes.writeUInt32BE(crcOf(bytes, payload), CRC_AT);
  return bytes;
}

/** The fields, or undefined where a code is unknown or a number too large. Looks at no rule and no CRC. */
export function decodeHead(bytes: Buffer): FrameHead | undefined {
  const type = TYPE_NAMES.get(bytes.readUInt8(0));
  const compression = COMPRESSION_NAMES.get(bytes.readUInt8(1));
  const guestOffset = readU64(bytes, 8);
  const guestLength = readU64(bytes, 16);
  if (!type || !compression || guestOffset === undefined || guestLength === undefined) return undefined;
  return {
    type,
    compression,
    disk: bytes.readUInt16BE(2),
    payloadLength: payloadLengthOf(bytes),
    guestOffset,
    guestLength,
  };
}

/** The one field that must be known, and limited, before the CRC can be checked. */
export function payloadLengthOf(headBytes: Buffer): number {
  return headBytes.readUInt32BE(4);
}

export function crcMatches(headBytes: Buffer, payload: Uint8Array): boolean {
  return headBytes.readUInt32BE(CRC_AT) === crcOf(headBytes, payload);
}

function crcOf(headBytes: Buffer, payload: Uint8Array): number {
  return crc32(payload, crc32(headBytes.subarray(0, CRC_AT)));
}
