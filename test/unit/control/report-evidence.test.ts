/** What a report shows of an attempt is of that attempt. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { evidenceOf } from '../../../src/control/reports/report-evidence.ts';
import type { AttemptReport } from '../../../src/failover/index.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
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
    const { attempts, pictures, missing } = await evidenceOf(TOOLS, undefined, [attempt(path, digest)]);
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
