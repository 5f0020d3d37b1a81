/** What a report shows of an attempt is of that attempt. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { evidenceOf } from '../../../src/control/reports/report-evidence.ts';
import type { AttemptReport } from '../../../src/failover/index.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import type { Replica } from '../../../src/replica/index.ts';
import { sha256 } from '../../../src/report/index.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

const TOOLS = { files: nodeFiles, keyOf: () => undefined };

function attempt(picturePath: string, pictureSha256?: string): AttemptReport {
  return {
    point: { pointId: 'p', sequence: 1, copyType: 'crash', consistency: 'crash', cutAtMs: 0 },
    ...{ reason: 'asked for', branchId: 'b', kept: false, verdict: 'passed', reasons: [], probes: [] },
    ...{ nonce: 'not-asked', assertions: [], network: { kind: 'unplugged', reason: 'none' }, steps: [] },
    picturePath,
    ...(pictureSha256 === undefined ? {} : { pictureSha256 }),
  };
}

test('F9 a picture that a later boot has put in the place of its own is not shown, and that is said', async (t) => {
  const path = join(await temporaryDirectory(t), 'console.png');
  const shown = async (digest?: string) => {
    const { attempts, pictures, missing } = await evidenceOf(TOOLS, { replica: undefined }, [
      attempt(path, digest),
    ]);
    return {
      picture: attempts[0]!.picture?.sha256,
      pictures: pictures.map(String),
      missing: missing.filter((what) => what.includes('picture')),
    };
  };
  await writeFile(path, 'mine');
  const mine = { picture: sha256(Buffer.from('mine')), pictures: ['mine'], missing: [] };
  assert.deepEqual(await shown(sha256(Buffer.from('mine'))), mine);
  await writeFile(path, 'of another boot');
  assert.deepEqual(await shown(sha256(Buffer.from('mine'))), {
    ...{ picture: undefined, pictures: [] },
    missing: ['the console picture, which a later boot has replaced, of attempt 1'],
  });
});

test('F9 a proof that cannot be read keeps no report from being written, which says what it lacks', async (t) => {
  const directory = await temporaryDirectory(t);
  const proofs = join(directory, 'p');
  await mkdir(proofs);
  for (const name of ['boot', 'application']) await writeFile(join(proofs, `${name}.json`), '{');
  await writeFile(join(proofs, 'console.png'), 'mine');
  const statement = { pointId: 'p', sourceSiteId: 'north', cutAtMs: 0 };
  const point = { statement, manifest: { signed: { statement }, skewMs: 0 }, statementDigest: 'd' };
  const replica = { points: [point], layout: { proofs: () => proofs } } as unknown as Replica;
  const asked = { assertion: 'ledger', outcome: 'passed' } as never;
  const report = { ...attempt(join(proofs, 'console.png')), assertions: [asked] };
  const { attempts, missing } = await evidenceOf(TOOLS, { replica }, [report]);
  const [boot, application] = missing.filter((what) => what.includes('proof'));
  assert.match(boot!, /^the proof of the boot, which cannot be read \(.*boot\.json.*\), of attempt 1$/);
  assert.match(application!, /^the proof of the application, which cannot be read \(.*\), of attempt 1$/);
  assert.deepEqual([attempts[0]!.bootProof, attempts[0]!.applicationProof], [undefined, undefined]);
  assert.equal(attempts[0]!.picture?.sha256, sha256(Buffer.from('mine')));
});
