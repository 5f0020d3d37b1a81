/**
 * How fast delta streams are made and read, in MB (10^6 bytes of guest data) a second, beside a plain SHA-256 of the
 * same bytes in the same run. `node bench/delta-codec.ts [MiB]`
 */

import {
  blockDigest,
  type DeltaCompression,
  type DeltaHeader,
  type DeltaPiece,
  decodeDelta,
  encodeDelta,
} from '../src/delta/index.ts';
import { systemClock } from '../src/lib/clock.ts';
import { systemRandom } from '../src/lib/random.ts';
import { printHead } from './support/head.ts';

const MIB = 1024 * 1024;
const TOTAL_MIB = 256;

const headerOf = (totalMib: number): DeltaHeader => ({
  session: 'bench',
  machineId: 'bench',
  pointId: 'bench',
  sequence: 1,
  epoch: 1,
  parent: null,
  disks: [{ diskId: 'disk-0', sizeBytes: totalMib * MIB }],
  blockBytes: 65_536,
  granularityBytes: 4096,
  digest: 'sha256',
  firstFrame: 0,
});

/** Half text-like, half noise in runs of 4 KiB: compresses to about half, like a used file system. */
function mixedMib(): Buffer {
  const bytes = systemRandom.bytes(MIB);
  for (let at = 0; at < MIB; at += 8192) {
    for (let i = at; i < at + 4096; i++) bytes[i] = 97 + (bytes[i]! & 15) * (i & 1);
  }
  return bytes;
}

function* piecesOf(data: Buffer, totalMib: number): Generator<DeltaPiece> {
  for (let i = 0; i < totalMib; i++) yield { type: 'data', disk: 0, offset: i * MIB, data };
}

async function* chunks(buffers: readonly Buffer[], chunkBytes: number): AsyncGenerator<Buffer> {
  for (const buffer of buffers) {
    for (let at = 0; at < buffer.length; at += chunkBytes) yield buffer.subarray(at, at + chunkBytes);
  }
}

async function rateOf(totalMib: number, work: () => Promise<void> | void): Promise<number> {
  const start = systemClock.monotonicMs();
  await work();
  return (totalMib * MIB) / 1000 / (systemClock.monotonicMs() - start);
}

export async function run(totalMib = TOTAL_MIB): Promise<void> {
  const samples: Record<string, Buffer> = { mixed: mixedMib(), random: systemRandom.bytes(MIB) };
  const rows: Record<string, Record<string, number>> = {};
  for (const [name, data] of Object.entries(samples)) {
    const sha256 = await rateOf(totalMib, () => {
      for (let i = 0; i < totalMib; i++) blockDigest(data);
    });
    rows[`${name}: sha256 alone`] = { 'encode MB/s': Math.round(sha256) };
    for (const level of [null, -3, 1, 3]) {
      const compression: DeltaCompression = level === null ? 'none' : { zstdLevel: level };
      const stream: Buffer[] = [];
      const encode = await rateOf(totalMib, async () => {
        for await (const buffer of encodeDelta(headerOf(totalMib), piecesOf(data, totalMib), () => null, {
          compression,
        }))
          stream.push(Buffer.from(buffer));
      });
      const decode = async (chunkBytes: number) =>
        rateOf(totalMib, async () => {
          const { frames } = await decodeDelta(chunks(stream, chunkBytes));
          for await (const frame of frames) if (frame.type === 'trailer') break;
        });
      const bytes = stream.reduce((sum, buffer) => sum + buffer.length, 0);
      rows[`${name}: ${level === null ? 'none' : `zstd ${level}`}`] = {
        'encode MB/s': Math.round(encode),
        'decode MB/s, chunks of 64 KiB': Math.round(await decode(65_536)),
        'decode MB/s, chunks of 4 MiB': Math.round(await decode(4 * MIB)),
        'size, %': Math.round((100 * bytes) / (totalMib * MIB)),
      };
    }
  }
  console.table(rows);
}

if (import.meta.main) {
  await printHead();
  await run(Number(process.argv[2] ?? TOTAL_MIB));
}
