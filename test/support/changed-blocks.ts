import assert from 'node:assert/strict';
import { DIGEST_BYTES } from '../../src/delta/index.ts';
import { alignOutward, type Extents, extentsOf, totalLength, unionOf } from '../../src/lib/extents.ts';
import { runCommand } from '../../src/lib/processes.ts';

/** Disks are compared, and sent, by these. */
const BLOCK_BYTES = 65_536;

/** What two sites have written to one disk since they held the same. */
export interface Divergence {
  readonly sizeBytes: number;
  readonly there: Extents;
  readonly here: Extents;
}

/** What QEMU says that an image and those below it, `files` in all, hold themselves; other processes may have them open. */
export async function writtenTo(path: string, files = 1): Promise<Extents> {
  const map = ['map', '-U', '-f', 'qcow2', '--output=json', path];
  const found = JSON.parse((await runCommand('qemu-img', map)).stdout) as {
    readonly start: number;
    readonly length: number;
    readonly depth: number;
    readonly present: boolean;
  }[];
  const own = found.filter(({ depth, present }) => present && depth < files);
  return extentsOf(own.map(({ start, length }) => ({ offset: start, length })));
}

/**
 * Fails the test if more has crossed than a tenth above the blocks that either site has written, and what a first copy that is compared
 * has beside its data: a digest of every block of the disks, and 32 KiB of heads, trailer and statement. Returns the numbers in words.
 */
export function assertOnlyDifference(disks: readonly Divergence[], receivedBytes: number): string {
  let [writtenBytes, blockBytes, metadataBytes] = [0, 0, 32 * 1024];
  for (const { sizeBytes, there, here } of disks) {
    const both = unionOf(there, here);
    writtenBytes += totalLength(both);
    blockBytes += totalLength(alignOutward(both, BLOCK_BYTES, sizeBytes));
    metadataBytes += Math.ceil(sizeBytes / BLOCK_BYTES) * DIGEST_BYTES;
  }
  const said = `${receivedBytes} bytes crossed; both sites have written ${writtenBytes}, in blocks of ${blockBytes}; ${metadataBytes} for the rest`;
  assert.ok(writtenBytes > 0, said);
  assert.ok(receivedBytes <= 1.1 * blockBytes + metadataBytes, said);
  return said;
}
