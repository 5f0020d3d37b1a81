import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { decodeLeaves, encodeLeaves, treeOfLayers } from '../../../src/delta/index.ts';
import {
  decoded,
  encoded,
  framesOf,
  SAMPLE_HEADER,
  SAMPLE_PIECES,
  SAMPLE_STATEMENT,
} from './delta-samples.ts';

/** What version 1 wrote. These files never change; see test/golden/delta/README.md. */
const golden = (name: string) => readFile(new URL(`../../golden/delta/${name}`, import.meta.url));

const TRAILER = { frames: 4, dataBytes: 1024, zeroBytes: 67_344, statement: SAMPLE_STATEMENT };

test('the streams of version 1 are still read', async () => {
  for (const name of ['v1-none.delta', 'v1-zstd.delta']) {
    const { header, frames } = await decoded(await golden(name));
    assert.deepEqual(header, SAMPLE_HEADER);
    assert.deepEqual(frames, [...framesOf(SAMPLE_PIECES), { type: 'trailer', trailer: TRAILER }]);
  }
  const resumed = await decoded(await golden('v1-resumed.delta'), {
    received: { frames: 2, dataBytes: 512, zeroBytes: 65_536, disk: 0, endOffset: 66_560 },
  });
  assert.deepEqual(resumed.header, { ...SAMPLE_HEADER, firstFrame: 2 });
  assert.deepEqual(resumed.frames, [
    ...framesOf(SAMPLE_PIECES.slice(2), 2),
    { type: 'trailer', trailer: TRAILER },
  ]);
});

test('the uncompressed stream is still written byte by byte as in version 1', async () => {
  assert.deepEqual(await encoded(), await golden('v1-none.delta'));
});

test('the leaves file of version 1 is still read and written, and its root is still the same', async () => {
  const bytes = await golden('v1.leaves');
  const leaves = decodeLeaves(bytes, 'v1.leaves');
  assert.deepEqual(Buffer.concat([...encodeLeaves(leaves)]), bytes);
  assert.deepEqual(
    [...leaves.leaves].map(({ index, digest }) => [index, digest.toString('hex')]),
    [
      [0, '11'.repeat(32)],
      [64, '22'.repeat(32)],
      [69, '33'.repeat(32)],
    ],
  );
  assert.equal(`${treeOfLayers([leaves]).root().toString('hex')}\n`, (await golden('v1.root')).toString());
});
