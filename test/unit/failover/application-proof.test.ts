import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  demotedPoints,
  loadApplicationProof,
  storeApplicationProof,
} from '../../../src/failover/application-proof.ts';
import { systemClock } from '../../../src/lib/clock.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { newId, systemRandom } from '../../../src/lib/random.ts';
import type { ReplicaPoint } from '../../../src/replica/index.ts';
import { ReplicaLayout } from '../../../src/replica/layout.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const SIGNER = { keyId: 'test', sign: () => Buffer.alloc(64) };

test('S0.6 a refuted claim is known until retention takes the point away, and then nobody stumbles over it', async (t) => {
  const layout = new ReplicaLayout(await temporaryDirectory(t), newId(systemClock, systemRandom));
  const pointId = newId(systemClock, systemRandom);
  const statementDigest = 'a'.repeat(64);
  const statement = { pointId, assertions: [{ name: 'books' }] };
  const point = { statement, statementDigest } as unknown as ReplicaPoint;
  const assertions = [{ name: 'books', outcome: 'failed' as const, tookMs: 1 }];
  const about = { pointId, statementDigest, verdict: 'failed' as const, startedAtMs: 1 };
  const signed = await storeApplicationProof(
    { files: nodeFiles, signer: SIGNER },
    { layout },
    {
      ...about,
      assertions,
    },
  );
  assert.deepEqual(await loadApplicationProof(nodeFiles, { layout }, point), signed);
  assert.deepEqual(await demotedPoints(nodeFiles, { layout, points: [point] }), new Set([pointId]));
  const other = { ...point, statementDigest: 'b'.repeat(64) };
  assert.equal(await loadApplicationProof(nodeFiles, { layout }, other), undefined);

  // Whoever began to look at the points before goes on with those that were there then.
  await nodeFiles.removeDirectory(layout.proofs(pointId));
  assert.equal(await loadApplicationProof(nodeFiles, { layout }, point), undefined);
  assert.deepEqual(await demotedPoints(nodeFiles, { layout, points: [point] }), new Set());
});
