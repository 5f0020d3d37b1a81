import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { publishFile, readSmallFile } from '../../../src/lib/files.ts';
import { nodeFiles } from '../../../src/lib/node-files.ts';
import { temporaryDirectory } from '../../support/temporary.ts';

test('a small file that is not there, or goes when it is looked at, is none', async (t) => {
  const path = join(await temporaryDirectory(t), 'record.json');
  assert.equal(await readSmallFile(nodeFiles, path, 100), undefined);
  await writeFile(path, '{}');
  const files: typeof nodeFiles = {
    ...nodeFiles,
    open: async (asked, how) => {
      await nodeFiles.remove(asked);
      return nodeFiles.open(asked, how);
    },
  };
  assert.equal(await readSmallFile(files, path, 100), undefined);
});

test('a small file that is published anew while it is read is the old one or the new one', async (t) => {
  const path = join(await temporaryDirectory(t), 'record.json');
  const contents = ['{"a":1}', '{"a":"much longer than before"}', '{}'];
  await writeFile(path, contents[0]!);
  const publish = (content: string) => publishFile(nodeFiles, path, Buffer.from(content));
  const files: typeof nodeFiles = {
    ...nodeFiles,
    open: async (asked, how) => {
      await publish(contents[1]!);
      const handle = await nodeFiles.open(asked, how);
      await publish(contents[2]!);
      return handle;
    },
  };
  const read = String(await readSmallFile(files, path, 100));
  assert.ok(contents.includes(read), read);
});
