import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { readSmallFile } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

test('a small file that is removed between two looks at it is none', async (t) => {
  const path = join(await temporaryDirectory(t), 'record.json');
  await writeFile(path, '{}');
  const files: typeof nodeFiles = {
    ...nodeFiles,
    sizeOf: async (asked) => {
      const size = await nodeFiles.sizeOf(asked);
      await rm(asked);
      return size;
    },
  };
  assert.equal(await readSmallFile(files, path, 100), undefined);
});
