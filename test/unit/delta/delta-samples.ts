import { crc32 } from 'node:zlib';
import {
  type DecodeOptions,
  type DeltaFrame,
  type DeltaHeader,
  type DeltaPiece,
  decodeDelta,
  type EncodeOptions,
  encodeDelta,
} from '../../../src/delta/index.ts';
import { canonicalJson, type Json } from '../../../src/lib/canonical-json.ts';

/** A small header of two disks; 4 KiB granularity, the second disk with an odd end. */
export const SAMPLE_HEADER: DeltaHeader = {
  session: 'session-1',
  machineId: 'machine-1',
  pointId: 'point-2',
  sequence: 2,
  epoch: 1,
  parent: { pointId: 'point-1', statementDigest: 'ab'.repeat(32) },
  disks: [
    { diskId: 'disk-0', sizeBytes: 1_048_576 },
    { diskId: 'disk-1', sizeBytes: 10_000 },
  ],
  blockBytes: 65_536,
  granularityBytes: 512,
  digest: 'sha256',
  firstFrame: 0,
};

export const SAMPLE_STATEMENT: Json = { point: 'point-2', signature: '00ff' };

export const SAMPLE_PIECES: readonly DeltaPiece[] = [
  { type: 'data', disk: 0, offset: 512, data: Buffer.alloc(512, 'warmsite ') },
  { type: 'zero', disk: 0, offset: 1024, length: 65_536 },
  {
    type: 'data',
    disk: 1,
    offset: 0,
    data: Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 31) & 255)),
  },
  { type: 'zero', disk: 1, offset: 8192, length: 1808 },
];

export async function encoded(
  header: DeltaHeader = SAMPLE_HEADER,
  pieces: readonly DeltaPiece[] = SAMPLE_PIECES,
  options: EncodeOptions = { compression: 'none' },
): Promise<Buffer> {
  const buffers: Buffer[] = [];
  for await (const buffer of encodeDelta(header, pieces, () => SAMPLE_STATEMENT, options))
    buffers.push(Buffer.from(buffer));
  return Buffer.concat(buffers);
}

/** `bytes` in chunks of the given lengths, taken in turn; each chunk is memory of its own. */
export async function* chunksOf(bytes: Uint8Array, lengths: readonly number[] = [bytes.length]) {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = Math.min(bytes.length, at + Math.max(0, lengths[i % lengths.length]!));
    yield Buffer.from(bytes.subarray(at, end));
    at = end;
  }
}

export async function decoded(
  bytes: Uint8Array,
  options: DecodeOptions = {},
  lengths?: readonly number[],
): Promise<{ header: DeltaHeader; frames: DeltaFrame[] }> {
  const { header, frames } = await decodeDelta(chunksOf(bytes, lengths), options);
  return { header, frames: await allOf(frames) };
}

/** The frames that a decoder must give for these pieces. */
export function framesOf(pieces: readonly DeltaPiece[], first = 0): DeltaFrame[] {
  return pieces.map((piece, i) => {
    const number = first + i;
    if (piece.type === 'data') return { ...piece, number, data: Buffer.from(piece.data) };
    return piece.type === 'same'
      ? { ...piece, number, leaves: Buffer.from(piece.leaves) }
      : { ...piece, number };
  });
}

/** A frame made by hand, right or wrong, with a right CRC. */
export function rawFrame(fields: {
  type: number;
  compression?: number;
  disk?: number;
  offset?: bigint;
  length?: bigint;
  payload?: Uint8Array;
}): Buffer {
  const payload = fields.payload ?? Buffer.alloc(0);
  const head = Buffer.alloc(28);
  head.writeUInt8(fields.type, 0);
  head.writeUInt8(fields.compression ?? 0, 1);
  head.writeUInt16BE(fields.disk ?? 0, 2);
  head.writeUInt32BE(payload.length, 4);
  head.writeBigUInt64BE(fields.offset ?? 0n, 8);
  head.writeBigUInt64BE(fields.length ?? 0n, 16);
  head.writeUInt32BE(crc32(Buffer.concat([head.subarray(0, 24), payload])), 24);
  return Buffer.concat([head, payload]);
}

/** The preamble, by the text of docs/format.md and not by the encoder. */
export function rawPreamble(version = 1): Buffer {
  const bytes = Buffer.from('895753440d0a1a0a0000000000000000', 'hex');
  bytes.writeUInt32BE(version, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 12)), 12);
  return bytes;
}

export function rawHeader(header: object = SAMPLE_HEADER): Buffer {
  return rawFrame({ type: 1, payload: Buffer.from(canonicalJson(header as Json)) });
}

export function rawTrailer(frames: number, dataBytes: number, zeroBytes: number, statement: Json = null) {
  return rawFrame({
    type: 4,
    payload: Buffer.from(canonicalJson({ frames, dataBytes, zeroBytes, statement })),
  });
}

export function rawStream(...frames: Buffer[]): Buffer {
  return Buffer.concat([rawPreamble(), rawHeader(), ...frames]);
}

/** Everything that an async iterable gives. */
export async function allOf<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
