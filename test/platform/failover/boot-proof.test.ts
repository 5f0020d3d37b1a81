import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { isBootProofOf, loadBootProof, provenPoints } from '../../../src/failover/index.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { failoverSite } from '../../support/failover-site.ts';

test('S0.30 right after seeding a point boots in isolation and is proven by what it draws', async (t) => {
  const site = await failoverSite(t);
  const pointId = await site.point();
  const { replica } = site;
  const report = await site.failovers.test(replica, { pointId });
  t.diagnostic(JSON.stringify({ rtoMs: report.rtoMs, steps: report.steps, warnings: report.warnings }));
  const [attempt] = report.attempts;
  assert.equal(report.verdict, 'passed', JSON.stringify(attempt));
  assert.equal(attempt?.nonce, 'read');
  assert.equal(attempt.network.kind, 'isolated', JSON.stringify(attempt.network));
  assert.deepEqual(replica.branches, []);

  const signed = await loadBootProof(nodeFiles, replica, pointId);
  const { statementDigest } = replica.point(pointId);
  assert.ok(signed && isBootProofOf(signed, { statementDigest, publicKey: site.publicKey }));
  const forged = { ...signed, proof: { ...signed.proof, rtoMs: 1 } };
  assert.equal(isBootProofOf(forged, { statementDigest, publicKey: site.publicKey }), false);
  const png = await readFile(attempt.picturePath!);
  assert.equal(signed.proof.picture?.sha256, createHash('sha256').update(png).digest('hex'));
  assert.deepEqual([...(await provenPoints(nodeFiles, replica))], [pointId]);
});
