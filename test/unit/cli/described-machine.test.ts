/** The file that the manual shows is one that `vm add --from` takes. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { machineFromFile } from '../../../src/cli/machine-description.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

test('the machine that docs/operating.md describes in a file is understood', async (t) => {
  const manual = await readFile(join(import.meta.dirname, '../../../docs/operating.md'), 'utf8');
  const [, shown] = /`warmsite vm add --from web\.json`.*?```json\n(.*?)```/s.exec(manual) ?? [];
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'web.json');
  await writeFile(path, shown!);
  const request = await machineFromFile(nodeFiles, path);
  assert.ok('disks' in request);
  assert.deepEqual(
    request.disks.map((disk) => 'path' in disk && disk.path),
    [join(directory, 'web.qcow2')],
  );
});
